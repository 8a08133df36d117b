"""``nucleate evaluate`` from the command line: the tables, the exit codes, comparing."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from ase.build import bulk
from ase.io import write
from rich.console import Console
from typer.testing import CliRunner

from nucleate.cli.app import app
from nucleate.cli.report_view import print_comparison, print_report
from nucleate.data import build_store
from nucleate.evaluation.compare import compare_reports
from nucleate.evaluation.family import FAMILIES
from nucleate.evaluation.metric import Metric
from nucleate.evaluation.report import Report

FAMILY = Path(__file__).resolve().parents[1] / "evaluation"


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ``good`` (elements) and ``bad`` (the same, one broken), and a ``store`` of strained elements."""
    folder = tmp_path_factory.mktemp("sets")
    rng = np.random.default_rng(3)
    for name in ("good", "bad", "cifs"):
        (folder / name).mkdir()
        for i, symbol in enumerate(("Cu", "Si", "Fe", "Mg", "Al", "W") * (3 if name == "cifs" else 1)):
            atoms = bulk(symbol)
            atoms.set_cell(atoms.cell * rng.uniform(0.98, 1.02), scale_atoms=True)
            write(folder / name / f"{i:02d}-{symbol}.cif", atoms)
    (folder / "bad" / "zz.cif").write_text("nothing")
    build_store(folder / "cifs", folder / "store", fractions=(0.6, 0.0, 0.4))
    return folder


@pytest.fixture(autouse=True)
def _test_family(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(FAMILY))
    monkeypatch.setitem(FAMILIES, "nearest", "nearest_family")
    monkeypatch.setenv("NUCLEATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "160")


def _run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["evaluate", *map(str, words)])
    return result.exit_code, result.output


def test_one_set_prints_its_table_and_writes_its_report(sets: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    code, text = _run(sets / "bad", "-r", sets / "store", "-o", out, "--metrics", "nearest")
    assert code == 0, text
    assert "85.71 %" in text
    assert "48.7 to 97.4" in text  # Wilson's interval of 6 of 7
    assert "100.00 %" in text  # the held-out sample
    assert "nearest distance at least 0.5 Å" in text
    assert "1 of 7 crystals could not be read" in text
    assert "split test of the reference" in text
    content = json.loads((out / "summary.json").read_text())
    assert content["far_enough"]["n"] == 7
    assert content["about"]["crystals"]["source"].endswith("bad")


def test_settings_and_seed_reach_the_evaluation(sets: Path, tmp_path: Path) -> None:
    words = ("--metrics", "nearest", "--setting", "min_distance=2.6", "--seed", "7", "--samples", "4")
    code, text = _run(sets / "good", "-o", tmp_path / "report", *words)
    assert code == 0, text
    content = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert content["about"]["settings"]["min_distance"] == 2.6
    assert (content["about"]["settings"]["samples"], content["about"]["seed"]) == (4, 7)
    assert content["far_enough"]["value"] < 1


def test_test_structures_that_nobody_predicted_count(sets: Path, tmp_path: Path) -> None:
    asked = [path.stem for path in sorted((sets / "cifs").iterdir())[:8]]  # 6 of them are in "good"
    (tmp_path / "asked.txt").write_text("\n".join(asked))
    words = (sets / "good", "-r", sets / "store", "--metrics", "csp", "--targets")
    code, text = _run(*words, tmp_path / "asked.txt", "-o", tmp_path / "report")
    assert code == 0, text
    content = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert (content["match_rate"]["value"], content["match_rate"]["n"]) == (0.75, 8)
    assert "Of 2 test structures that were asked for no crystal came" in " ".join(text.split())
    code, text = _run(*words, "held-out", "-o", tmp_path / "other")
    assert code == 1
    assert "predictions of test structures that were not asked for" in " ".join(text.split())


def test_properties_and_the_time_of_the_generator(
    sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "heavy_model.py").write_text(
        "def dense(crystals):\n    return [c.density for c in crystals]\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    out = tmp_path / "report"
    words = (sets / "good", "-o", out, "--metrics", "nearest", "--generation-seconds", "12")
    code, text = _run(*words, "--property", "density=heavy_model:dense,unit=g/cm³,low=8")
    assert code == 0, text
    assert "density by heavy_model:dense between 8 and inf g/cm³" in text
    content = json.loads((out / "summary.json").read_text())
    assert content["density_hit_rate"]["value"] == pytest.approx(2 / 6)  # copper, tungsten; iron has 7.9
    assert content["about"]["sample_efficiency"]["seconds_per_sample"] == 2.0
    for spec, message in (
        ("density", "A property is NAME=MODULE:FUNCTION"),
        ("density=heavy_model:light", "cannot be loaded"),
        ("density=heavy_model", "is no function"),
        ("density=heavy_model:dense,hihg=3", "did you mean 'high'"),
        ("density=heavy_model:dense,high=much", "is a number, got 'much'"),
    ):
        code, text = _run(*words, "--property", spec)
        assert code == 1, text
        assert message in " ".join(text.split())


def test_a_set_without_a_single_crystal_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.cif").write_text("data_a")
    code, text = _run(tmp_path / "none", "-o", tmp_path / "report", "--metrics", "nearest,condition")
    assert code == 1
    assert "None of the 1 inputs" in text
    assert "0.00 %" in text
    assert "\ncondition" not in text
    assert (tmp_path / "report" / "crystals.csv").exists()


def test_what_protocols_share_is_said_once() -> None:
    shared = "crystals that could not be read or encoded count against the set"
    metrics = {
        name: Metric(name, value, n, (0.0, 1.0), f"{own}; {shared}", unit="share")
        for name, value, n, own in (("a", 0.5, 7, "of a"), ("b", 0.25, 700, "of b"), ("c", 1.0, 700, "of c"))
    }
    metrics["d"] = Metric("d", None, 0, None, "of d", note="nothing to see")
    families = {"first": ("a", "b", "c"), "second": ("d",), "third": ()}
    report = Report(pa.table({}), metrics, families, {}, {}, (), None)
    output = Console(width=60, record=True, file=io.StringIO())
    print_report(output, report)
    lines = output.export_text().splitlines()
    assert lines[1].split() == ["a", "50.00", "%", "0.0", "to", "100.0", "7", "–"]
    assert lines[2].strip() == "of a [a]"
    assert sum(line.startswith("[a] crystals that") for line in lines) == 1
    assert "second  not measured: nothing to see" in lines
    assert not any("third" in line for line in lines)


def test_two_sets_are_compared(sets: Path, tmp_path: Path) -> None:
    out = tmp_path / "both"
    code, text = _run(sets / "good", sets / "bad", "--compare", "-o", out, "--metrics", "nearest")
    assert code == 0, text
    assert "A = " in text
    assert "A − B" in text
    assert "+14.3" in text
    compared = json.loads((out / "comparison.json").read_text())["metrics"].values()
    tested = sum(metric["p_adjusted"] is not None for metric in compared)
    assert tested > 0
    assert f"number of tests, {tested} (Holm)" in text
    assert (out / "second" / "crystals.csv").exists()


def test_only_tests_are_counted_in_the_adjustment() -> None:
    metrics = [Metric("frechet", v, 100, (v - 1, v + 1), "p", better="lower") for v in (3.0, 8.0)]
    shares = [Metric("ok", v / 100, 100, (0.0, 1.0), "p", unit="share", successes=v) for v in (40, 60)]
    about = {"crystals": {"source": "set", "num": 100}}
    reports = [
        Report(pa.table({}), {"frechet": m, "ok": s}, {"test": ("frechet", "ok")}, {}, {}, (), None, about)
        for m, s in zip(metrics, shares)
    ]
    buffer = io.StringIO()
    print_comparison(Console(file=buffer, width=160), compare_reports(*reports))
    assert "number of tests, 1 (Holm)" in buffer.getvalue()


def test_wrong_words_are_one_sentence(sets: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    for words, message in (
        ((sets / "none", "-o", out), "There is no file, folder or match"),
        ((sets / "good", "-o", out, "--metrics", "speed"), "There is no family of metrics 'speed'"),
        ((sets / "good", "-o", out, "-r", sets / "cifs"), "There is no store"),
        ((sets / "good", sets / "bad", "-o", out), "two are compared with --compare"),
        ((sets / "good", "-o", out, "--compare"), "1 were named with --compare"),
        ((sets / "good", "-o", out, "--setting", "stoll=1"), "did you mean 'stol'"),
    ):
        code, text = _run(*words)
        assert code == 1, text
        assert message in " ".join(text.split())
        assert not out.exists()


def test_a_family_that_was_asked_for_and_measured_nothing_is_a_failure(sets: Path, tmp_path: Path) -> None:
    words = (sets / "good", "-o", tmp_path / "report")
    code, text = _run(*words, "--metrics", "nearest,csp")  # nothing names a test structure
    assert code == 1
    assert "Asked for but not measured: csp (no reference was named)" in text
    assert "100.00 %" in text
    assert _run(*words, "--metrics", "nearest")[0] == 0


def test_a_family_that_was_asked_for_and_did_not_run_is_a_failure(
    sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needy_family.py").write_text("import a_library_nobody_has\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(FAMILIES, "needy", "needy_family")
    code, text = _run(sets / "good", "-o", tmp_path / "report", "--metrics", "needy,nearest")
    assert code == 1
    assert "nucleate[evaluate]" in text
    assert "Asked for but not measured: needy" in text
    assert "100.00 %" in text
    assert "needy_family" not in sys.modules
