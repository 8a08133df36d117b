"""The folder a generation leaves: CIFs, one table in two formats, and what was asked."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

import nucleate
from nucleate.crystal.crystal import Crystal
from nucleate.errors import NucleateError
from nucleate.generation.checks import GeneratedRow

_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "index": pa.int64(),
        "formula": pa.string(),
        "composition": pa.string(),
        "num_atoms": pa.int32(),
        "space_group_asked": pa.int16(),
        "space_group": pa.int16(),
        "crystal_system": pa.string(),
        "wyckoff": pa.string(),
        "num_orbits": pa.int32(),
        "num_free_coords": pa.int32(),
        "prototype_key": pa.string(),
        "volume_per_atom": pa.float64(),
        "density": pa.float64(),
        "density_ok": pa.bool_(),
        "min_distance": pa.float64(),
        "min_distance_ratio": pa.float64(),
        "denoising_error": pa.float64(),
        "template_share": pa.float64(),
        "charge_neutral": pa.bool_(),
        "problem": pa.string(),
        # the crystal itself, to the last bit
        "wyckoff_indices": pa.list_(pa.uint8()),
        "atomic_numbers": pa.list_(pa.uint8()),
        "free_coords": pa.list_(pa.float64()),
        "lattice_params": pa.list_(pa.float64()),
    }
)
_ROW_FIELDS = tuple(f.name for f in fields(GeneratedRow) if f.name != "predicted")
_PREDICTED = "predicted_"
"""What the columns of properties begin with."""


@dataclass(frozen=True)
class Sitting:
    """One stretch of a run, from its start to where it ended or was stopped.

    Attributes:
        num_crystals: made in it.
        seconds: it took.
        device: where the networks ran.
        versions: of what made them.
    """

    num_crystals: int
    seconds: float
    device: str
    versions: Mapping[str, str]


class ResultFolder:
    """``crystals/*.cif``, ``crystals.parquet``, ``crystals.csv`` and ``run.json``; every file is complete or absent.

    The Parquet table holds the crystals to the last bit and is what a run that goes on reads; it is written after
    the CIFs it lists.

    Attributes:
        path: the folder.
        sittings: those of the run in it, as far as they are written down, oldest first; found by ``begin``.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.sittings: tuple[Sitting, ...] = ()

    def begin(self, asked: Mapping[str, Any]) -> tuple[list[GeneratedRow], list[Crystal]]:
        """What an earlier run with the same settings has made; nothing in a folder where nothing was made yet.

        Raises:
            NucleateError: the folder holds something else, or a run with other settings.
        """
        (self.path / "crystals").mkdir(parents=True, exist_ok=True)
        run = self.path / "run.json"
        if not run.exists():
            strangers = sorted(p.name for p in self.path.iterdir() if p.name != "crystals")
            if strangers or any((self.path / "crystals").iterdir()):
                raise NucleateError(
                    f"{self.path} is not empty and holds no generation ({', '.join(strangers[:5]) or 'crystals'}): "
                    "name a new folder with --out"
                )
            self.write_run({"asked": dict(asked)})
            return [], []
        try:
            content = json.loads(run.read_text(encoding="utf-8"))
            found = content["asked"]
            sittings = tuple(Sitting(**sitting) for sitting in content.get("sittings", ()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise NucleateError(f"{run} is not one of nucleate's: name a new folder with --out") from error
        table = self.path / "crystals.parquet"
        if not table.exists() and not any((self.path / "crystals").iterdir()):
            self.write_run({"asked": dict(asked)})
            return [], []
        differing = [
            f"{name} {found.get(name)!r} there, {asked.get(name)!r} asked"
            for name in sorted({*found, *asked})
            if _identity(found.get(name)) != _identity(json.loads(json.dumps(asked.get(name))))
        ]
        if differing:
            raise NucleateError(
                f"{self.path} holds a run with other settings ({'; '.join(differing)}): name another folder with --out"
            )
        self.sittings = sittings
        return _read(table) if table.exists() else ([], [])

    def add(
        self,
        new: Sequence[tuple[GeneratedRow, Crystal]],
        rows: Sequence[GeneratedRow],
        crystals: Sequence[Crystal],
    ) -> None:
        """Write the CIFs of new crystals, then the tables of all of them."""
        for row, crystal in new:
            try:
                text = crystal.to_cif(row.id)
            except ModuleNotFoundError:
                # The symbols of a CIF come from gemmi; where it is missing the Parquet table holds the crystals.
                break
            write_bytes(self.path / "crystals" / f"{row.id}.cif", text.encode())
        buffer = io.BytesIO()
        pq.write_table(_table(rows, crystals), buffer, compression="zstd")
        table = io.StringIO(newline="")
        names = [*_ROW_FIELDS, *(_PREDICTED + name for name in _predicted_names(rows))]
        writer = csv.DictWriter(table, fieldnames=names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(_cells(row) for row in rows)
        write_bytes(self.path / "crystals.csv", table.getvalue().encode())
        write_bytes(self.path / "crystals.parquet", buffer.getvalue())

    def write_sitting(
        self, sitting: Sitting, *, num_asked: int, num_crystals: int, about: Mapping[str, Any]
    ) -> None:
        """Write ``run.json`` with one more sitting than ``begin`` found, and ``about`` what is said of the whole run.

        The ``seconds`` of the run are null where a sitting was killed before it was written down.
        """
        sittings = [*self.sittings, sitting]
        known = sum(one.num_crystals for one in sittings) == num_crystals
        self.write_run(
            {
                **about,
                "num_asked": num_asked,
                "num_crystals": num_crystals,
                "seconds": round(sum(one.seconds for one in sittings), 3) if known else None,
                "sittings": [asdict(one) for one in sittings],
            }
        )

    def write_run(self, content: Mapping[str, Any]) -> None:
        """Write ``run.json``."""
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        write_bytes(self.path / "run.json", (text + "\n").encode())


def versions() -> dict[str, str]:
    """Versions of what makes crystals."""
    return {
        "nucleate": nucleate.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def _identity(setting: Any) -> Any:
    """What makes two settings the same: weights are told apart by their hash, whatever the file is called."""
    return setting["hash"] if isinstance(setting, Mapping) and setting.get("hash") else setting


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that it appears complete or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _cells(row: GeneratedRow) -> dict[str, Any]:
    """The row with a column for each property."""
    cells = {name: getattr(row, name) for name in _ROW_FIELDS}
    return cells | {_PREDICTED + name: value for name, value in row.predicted.items()}


def _predicted_names(rows: Sequence[GeneratedRow]) -> list[str]:
    """Properties that the rows have, which is the same for all rows of a run."""
    return list(rows[0].predicted) if rows else []


def _table(rows: Sequence[GeneratedRow], crystals: Sequence[Crystal]) -> pa.Table:
    predicted = [pa.field(_PREDICTED + name, pa.float64()) for name in _predicted_names(rows)]
    cells = [_cells(row) for row in rows]
    columns: dict[str, list[Any]] = {
        name: [row[name] for row in cells] for name in (*_ROW_FIELDS, *(f.name for f in predicted))
    }
    columns["wyckoff_indices"] = [c.wyckoff_indices.astype(np.uint8) for c in crystals]
    columns["atomic_numbers"] = [c.atomic_numbers.astype(np.uint8) for c in crystals]
    columns["free_coords"] = [c.free_coords.ravel() for c in crystals]
    columns["lattice_params"] = [c.lattice_params for c in crystals]
    schema = pa.schema([*_SCHEMA, *predicted])
    return pa.table([pa.array(columns[f.name], type=f.type) for f in schema], schema=schema)


def _read(path: Path) -> tuple[list[GeneratedRow], list[Crystal]]:
    rows, crystals = [], []
    for values in pq.read_table(path).to_pylist():
        predicted = {
            name.removeprefix(_PREDICTED): value
            for name, value in values.items()
            if name.startswith(_PREDICTED)
        }
        rows.append(GeneratedRow(**{name: values[name] for name in _ROW_FIELDS}, predicted=predicted))
        crystals.append(
            Crystal(
                values["space_group_asked"],
                np.array(values["lattice_params"]),
                np.array(values["wyckoff_indices"], dtype=np.int64),
                np.array(values["atomic_numbers"], dtype=np.int64),
                np.array(values["free_coords"]).reshape(-1, 3),
            )
        )
    return rows, crystals
