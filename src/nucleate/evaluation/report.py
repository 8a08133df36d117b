"""What an evaluation found: one row per crystal, the averages, and the folder they are written to."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from nucleate.data.folder import LocalFolder
from nucleate.evaluation.column import Column
from nucleate.evaluation.metric import Metric

SUMMARY_FILE = "summary.json"


@dataclass(frozen=True, eq=False)
class Report:
    """The result of an evaluation.

    Attributes:
        table: one row per crystal, in the order of the input: what it is, what came along (``given.NAME``) and
            every value of every family.
        metrics: the averages by key.
        families: keys of the metrics of each family that ran.
        problems: why a family gave no metrics, by its name.
        reference_problems: why a family gave no score for the held-out sample.
        columns: meaning and unit of the columns of the families.
        reference_table: the rows of the held-out sample of the reference; None without a reference.
        about: what was evaluated, against what and how, as in ``summary.json``.
    """

    table: pa.Table
    metrics: Mapping[str, Metric]
    families: Mapping[str, tuple[str, ...]]
    problems: Mapping[str, str]
    reference_problems: Mapping[str, str]
    columns: tuple[Column, ...]
    reference_table: pa.Table | None
    about: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Metric:
        """The metric of this key."""
        return self.metrics[name]

    @property
    def warnings(self) -> list[str]:
        """What a reader must know before using the numbers, one sentence each."""
        return list(self.about["warnings"])

    def to_json(self) -> dict[str, Any]:
        """The content of ``summary.json``: the metrics by key, and ``about``."""
        family_of = {key: family for family, keys in self.families.items() for key in keys}
        metrics = {key: {**m.to_json(), "family": family_of[key]} for key, m in self.metrics.items()}
        return {**metrics, "about": dict(self.about)}

    def write(self, out: str | os.PathLike[str]) -> list[Path]:
        """The files written into the folder ``out``, each in one step.

        ``crystals.parquet`` and ``crystals.csv`` (one row per crystal), ``reference.parquet`` (the held-out
        sample), ``columns.json`` (meaning and unit of the columns), ``plots/`` and last ``summary.json``.
        """
        from nucleate.evaluation.charts import charts_of  # noqa: PLC0415  (loads with the drawings)
        from nucleate.evaluation.drawings import write_drawings  # noqa: PLC0415  (loads matplotlib)

        folder = LocalFolder(Path(out))
        written = [write_parquet(folder, "crystals.parquet", self.table)]
        written.append(write_csv(folder, "crystals.csv", self.table))
        if self.reference_table is not None:
            written.append(write_parquet(folder, "reference.parquet", self.reference_table))
        described = {c.name: {"unit": c.unit, "description": c.description} for c in self.columns if c.public}
        written.append(write_json(folder, "columns.json", described))
        title = f"{self.about['crystals']['source']}: {self.table.num_rows:,} crystals"
        written += write_drawings(charts_of(self), Path(out) / "plots", title=title)
        written.append(write_json(folder, SUMMARY_FILE, self.to_json()))
        return written


def write_parquet(folder: LocalFolder, name: str, table: pa.Table) -> Path:
    """Path of the table written in one step."""
    with folder.writing(name) as path:
        pq.write_table(table, path, compression="zstd")
    return folder.path / name


def write_csv(folder: LocalFolder, name: str, table: pa.Table) -> Path:
    """Path of the table written in one step; lists are JSON, for CSV has none."""
    columns = {}
    for column in table.column_names:
        values = table.column(column)
        if pa.types.is_nested(values.type):
            texts = [None if v is None else json.dumps(v) for v in values.to_pylist()]
            values = pa.array(texts, type=pa.string())
        columns[column] = values
    with folder.writing(name) as path:
        pa_csv.write_csv(pa.table(columns), path)
    return folder.path / name


def write_json(folder: LocalFolder, name: str, content: Any) -> Path:
    """Path of the content written in one step, indented, without NaN."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    folder.write_bytes(name, (text + "\n").encode())
    return folder.path / name
