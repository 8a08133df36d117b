"""The whole evaluation: report, files, schema, resuming, interruption, bad input."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import jsonschema
import nearest_family
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ase.build import bulk
from filelock import FileLock
from fourteen_atoms import real_atoms

from nucleate.data import Store
from nucleate.errors import ConfigError, NucleateError, SourceError, StoreError
from nucleate.evaluation import Report, Settings, evaluate
from nucleate.evaluation.column import Column
from nucleate.evaluation.family import FAMILIES
from nucleate.evaluation.scoring import Progress
from nucleate.evaluation.summary import summary_schema


@pytest.fixture
def run(nearest_calls: list[int], crystal_folder: Path, reference_store: Store, tmp_path: Path) -> Any:
    def evaluated(crystals: Any = crystal_folder, **options: Any) -> Report:
        options = {"out": tmp_path / "report", "cache": tmp_path / "cache", "metrics": ["nearest"], **options}
        return evaluate(crystals, reference_store.location, **options)

    return evaluated


def test_the_report_has_rows_averages_and_ceilings(run: Any, reference_store: Store) -> None:
    report = run()
    assert report.table.num_rows == 16
    assert "nearest" in report.table.column_names
    assert "secret" not in report.table.column_names
    enough = report["far_enough"]
    assert (enough.value, enough.n) == (pytest.approx(14 / 16), 16)
    assert enough.ci95 is not None
    assert enough.ci95[0] < 14 / 16 < enough.ci95[1]
    assert (enough.reference, enough.reference_n) == (1.0, reference_store.manifest.split_counts["test"])
    assert report["mean_density"].value == pytest.approx(
        np.mean([a.get_masses().sum() / a.get_volume() * 1.66053906660 for a in real_atoms()]), rel=1e-3
    )
    assert report["w_density"].reference is not None
    text = " ".join(report.warnings)
    assert "2 of 16 crystals could not be read (2) or encoded (0)" in text
    assert "Only 16 crystals" in text
    assert not report.problems


def test_the_files_say_what_the_report_says(run: Any, tmp_path: Path) -> None:
    report = run()
    out = tmp_path / "report"
    content = json.loads((out / "summary.json").read_text())
    jsonschema.Draft202012Validator.check_schema(summary_schema())
    jsonschema.validate(content, summary_schema(), cls=jsonschema.Draft202012Validator)
    assert content["far_enough"]["value"] == report["far_enough"].value
    assert content["far_enough"]["family"] == "nearest"
    assert content["about"]["reference"]["held_out"] == "split test of the reference"
    assert content["about"]["crystals"]["num_unreadable"] == 2
    assert pq.read_table(out / "crystals.parquet").equals(report.table)
    assert pq.read_table(out / "reference.parquet").num_rows == report["far_enough"].reference_n
    with (out / "crystals.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16
    assert [float(row["nearest"]) for row in rows[:14]] == pytest.approx(
        report.table.column("nearest").to_pylist()[:14], rel=1e-9
    )
    assert "broken" in rows[14]["id"]
    assert rows[14]["problem"]
    assert json.loads((out / "columns.json").read_text())["nearest"]["unit"] == "Å"
    assert (out / "plots" / "nearest_shares.png").read_bytes().startswith(b"\x89PNG")
    assert not [p for p in out.rglob("*") if p.name.startswith(".writing")]


def test_a_summary_that_breaks_the_schema_is_found(run: Any, tmp_path: Path) -> None:
    content = run().to_json()
    for change in (
        {"far_enough": {**content["far_enough"], "ci95": [0.1]}},
        {"far_enough": {**content["far_enough"], "protocol": ""}},
        {"about": {**content["about"], "schema_version": 2}},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**content, **change}, summary_schema())


def test_the_interactive_page_needs_no_network(run: Any, tmp_path: Path) -> None:
    run()
    page = (tmp_path / "report" / "plots" / "interactive.html").read_text()
    assert "nearest_shares" in page
    assert "Plotly.newPlot" in page
    assert 'src="http' not in page
    assert page.count("plotly.js v") == 1


def test_a_repeated_call_computes_nothing_and_gives_the_same(
    run: Any, nearest_calls: list[int], crystal_folder: Path
) -> None:
    first = run(str(crystal_folder))
    nearest_calls.clear()
    again = run(f"{crystal_folder}/")
    assert nearest_calls == []
    assert again.table.equals(first.table)
    assert {k: m.value for k, m in again.metrics.items()} == {k: m.value for k, m in first.metrics.items()}


def test_more_crystals_in_the_folder_cost_only_themselves(
    run: Any, nearest_calls: list[int], crystal_folder: Path, tmp_path: Path
) -> None:
    tables = tmp_path / "tables"
    tables.mkdir()
    rows = [
        {
            "numbers": a.numbers.tolist(),
            "lattice": a.cell.array.ravel().tolist(),
            "frac_coords": a.get_scaled_positions().ravel().tolist(),
        }
        for a in real_atoms()
    ]
    pq.write_table(pa.Table.from_pylist(rows), tables / "a.parquet")
    run(tables)
    nearest_calls.clear()
    pq.write_table(pa.Table.from_pylist(rows[:3]), tables / "b.parquet")
    assert run(tables).table.num_rows == 17
    assert nearest_calls == [3]


def _evaluate_slowly(crystals: str, reference: str, out: str, cache: str) -> None:
    def slow(candidate: object) -> float:
        time.sleep(0.3)
        return 1.0

    FAMILIES["nearest"] = "nearest_family"
    nearest_family.nearest = slow  # type: ignore[assignment]
    evaluate(crystals, reference, out=out, cache=cache, metrics=["nearest"])


def test_a_killed_evaluation_goes_on(
    run: Any, nearest_calls: list[int], crystal_folder: Path, reference_store: Store, tmp_path: Path
) -> None:
    out = tmp_path / "report"
    arguments = (str(crystal_folder), reference_store.location, str(out), str(tmp_path / "cache"))
    process = multiprocessing.get_context("fork").Process(target=_evaluate_slowly, args=arguments)
    process.start()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list(out.glob("work/rows/**/*.parquet")):
        time.sleep(0.05)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    kept = len(list(out.glob("work/rows/**/*.parquet")))
    assert 1 <= kept < 4
    report = run()
    assert report.table.num_rows == 16
    assert report.reference_table is not None
    assert sum(nearest_calls) == 16 - 5 * kept + report.reference_table.num_rows


def test_ctrl_c_keeps_what_is_done(run: Any, nearest_calls: list[int], tmp_path: Path) -> None:
    def stop(state: Progress) -> None:
        if state.stage == "nearest" and state.done >= 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"is kept in .*report: repeat the command to go on"):
        run(on_progress=stop)
    nearest_calls.clear()
    run()
    assert nearest_calls[:2] == [5, 1]


def test_ctrl_c_in_a_later_family_leaves_a_report_on_the_earlier_ones(run: Any, tmp_path: Path) -> None:
    def stop(state: Progress) -> None:
        if state.stage == "nearest":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(metrics=["condition", "nearest"], on_progress=stop)
    content = json.loads((tmp_path / "report" / "summary.json").read_text())
    jsonschema.validate(content, summary_schema())
    assert content["about"]["families"]["condition"]["problem"] == ""
    assert "repeat the command" in content["about"]["families"]["nearest"]["problem"]
    assert pq.read_table(tmp_path / "report" / "crystals.parquet").num_rows == 16
    assert not run(metrics=["condition", "nearest"]).problems


def test_progress_tells_every_stage(run: Any) -> None:
    seen: list[Progress] = []
    run(on_progress=seen.append)
    stages = list(dict.fromkeys(p.stage for p in seen))
    assert stages == ["reading", "reading the reference", "nearest", "held-out nearest", "writing"]
    assert [p.done for p in seen if p.stage == "nearest"] == [0, 5, 10, 15, 16]


def test_structures_in_memory_need_no_folder(nearest_calls: list[int], tmp_path: Path) -> None:
    atoms = [*real_atoms(), bulk("Pt")]
    report = evaluate(atoms, metrics=["nearest"], cache=tmp_path)
    assert report.table.num_rows == 15
    assert report["far_enough"].reference is None
    assert report.about["reference"] is None
    assert "w_density" not in report.metrics
    written = report.write(tmp_path / "later")
    assert {path.name for path in written} >= {"summary.json", "crystals.csv", "crystals.parquet"}
    jsonschema.validate(json.loads((tmp_path / "later" / "summary.json").read_text()), summary_schema())


def test_a_family_that_fails_does_not_cost_the_others(
    run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "lonely.py").write_text("import a_library_nobody_has\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(FAMILIES, "lonely", "lonely")
    report = run(metrics=["lonely", "nearest"])
    assert "pip install 'nucleate[evaluate]'" in report.problems["lonely"]
    assert report["far_enough"].value == pytest.approx(14 / 16)
    content = report.to_json()
    assert content["about"]["families"]["lonely"]["metrics"] == []
    jsonschema.validate(content, summary_schema())


def test_bad_input_is_one_sentence_and_touches_nothing(
    run: Any, tmp_path: Path, crystal_folder: Path
) -> None:
    with pytest.raises(SourceError, match="There is no file, folder or match"):
        run(tmp_path / "none")
    with pytest.raises(ConfigError, match="no family of metrics 'valid'"):
        run(metrics=["valid"])
    with pytest.raises(ConfigError, match="workers must be at least 1"):
        run(workers=0)
    with pytest.raises(StoreError, match="There is no store"):
        evaluate(crystal_folder, tmp_path / "no_store", cache=tmp_path)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("all my work")
    with pytest.raises(NucleateError, match=r"not empty and holds no report \(thesis.tex\)"):
        run(out=mine)
    assert (mine / "thesis.tex").read_text() == "all my work"
    with pytest.raises(NucleateError, match="is a file"):
        run(out=mine / "thesis.tex")
    with pytest.raises(NucleateError, match="would lie among the crystals"):
        run(out=crystal_folder / "report")
    assert not (crystal_folder / "report").exists()


def test_a_report_on_other_crystals_is_not_overwritten(
    run: Any, crystal_folder: Path, tmp_path: Path
) -> None:
    run()
    other = tmp_path / "other"
    shutil.copytree(crystal_folder, other)
    with pytest.raises(NucleateError, match=r"holds the report on .*, not on .*other"):
        run(other)
    (tmp_path / "report" / "summary.json").write_text("{}")
    with pytest.raises(NucleateError, match="is not a report of nucleate"):
        run()


def test_two_at_once_in_one_folder_are_refused(run: Any, tmp_path: Path) -> None:
    run()
    with (
        FileLock(tmp_path / "report" / "work" / "lock"),
        pytest.raises(NucleateError, match="Another process is evaluating"),
    ):
        run()


def test_settings_are_changed_by_text() -> None:
    changed = Settings().changed(["stol=0.5", "symprecs=0.1,0.02", "samples=3", "potential=other"])
    assert (changed.stol, changed.symprecs, changed.samples, changed.potential) == (
        0.5,
        (0.1, 0.02),
        3,
        "other",
    )
    with pytest.raises(ConfigError, match="did you mean 'stol'"):
        Settings().changed(["stoll=1"])
    with pytest.raises(ConfigError, match="is no such value"):
        Settings().changed(["samples=many"])
    with pytest.raises(ConfigError, match="NAME=VALUE"):
        Settings().changed(["stol"])
    with pytest.raises(ConfigError, match="samples must be at least 1"):
        Settings().changed(["samples=0"])


def test_every_family_has_a_module_that_exists_or_is_named() -> None:
    assert list(FAMILIES) == [
        "validity",
        "symmetry",
        "distribution",
        "novelty",
        "stability",
        "csp",
        "condition",
    ]
    assert Column("x", pa.int8(), "y").unit == ""


def test_the_page_on_evaluation_names_every_setting_with_its_default() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "evaluate.md").read_text(encoding="utf-8")
    rows = {}
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 3:
            names = re.findall(r"`([^`]+)`", cells[0])
            values = [v.strip().strip("`") for v in (cells[1].split(", ") if len(names) > 1 else [cells[1]])]
            rows.update(zip(names, values))
    for name, value in Settings().to_json().items():
        assert Settings().changed([f"{name}={rows[name]}"]) == Settings(), f"{name} is {value} by default"
