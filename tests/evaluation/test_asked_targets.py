"""Match rates over all test structures that were asked for, also those of which no crystal came."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import numpy as np
import pytest
import scipy.stats
from small_cells import small_cells, write_cells

from nucleate.crystal import UnitCell, encode
from nucleate.data import Store, build_store
from nucleate.data.bundled import load_bundled
from nucleate.errors import ConfigError
from nucleate.evaluation import Report, evaluate
from nucleate.evaluation.asked_targets import target_ids
from nucleate.evaluation.reference import Reference
from nucleate.evaluation.run import evaluate_two
from nucleate.evaluation.summary import summary_schema

ASKED = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``truth``, a store of small test structures with polymorphs among them, and ``half.parquet``: every other one."""
    folder = tmp_path_factory.mktemp("asked")
    truth = small_cells(ASKED)
    write_cells(folder / "truth.parquet", truth)
    build_store(folder / "truth.parquet", folder / "truth")
    half = {f"{name}_0": cell for name, cell in list(truth.items())[::2]}
    write_cells(folder / "half.parquet", half)
    (folder / "asked.txt").write_text("\n".join([*truth, "", next(iter(truth))]) + "\n")
    return folder


def evaluated(folder: Path, crystals: str, **options: object) -> Report:
    options = {"metrics": ["csp"], "cache": folder / "cache", **options}
    return evaluate(folder / crystals, folder / "truth", **options)  # type: ignore[arg-type]


def test_a_generator_that_gives_up_on_half_has_half_the_rate(folder: Path, tmp_path: Path) -> None:
    named = evaluated(folder, "half.parquet")
    assert (named["match_rate"].value, named["match_rate"].n) == (1.0, ASKED // 2)
    report = evaluated(folder, "half.parquet", targets=folder / "asked.txt", out=tmp_path / "report")
    rate = report["match_rate"]
    assert (rate.value, rate.n) == (0.5, ASKED)
    scipys = scipy.stats.binomtest(ASKED // 2, ASKED).proportion_ci(method="wilson")
    assert rate.ci95 == pytest.approx((scipys.low, scipys.high), abs=1e-9)
    assert report["match_rate_valid"].n == ASKED
    assert report["metre"].value == 0.5
    assert report["crmse"].value == pytest.approx(0.25, abs=1e-6)
    assert report["match_rmse_all"].value == pytest.approx(0.25, abs=1e-6)
    by_atoms = [m for name, m in report.metrics.items() if name.startswith("match_rate_atoms")]
    assert sum(m.n for m in by_atoms) == ASKED
    missing = report.table.slice(ASKED // 2)
    assert all("which was asked for" in text for text in missing.column("problem").to_pylist())
    assert missing.column("csp_match").to_pylist() == [False] * (ASKED // 2)
    assert any(w.startswith(f"Of {ASKED // 2} test structures") for w in report.warnings)
    assert report.about["crystals"]["num_missing"] == ASKED // 2
    jsonschema.validate(report.to_json(), summary_schema(), cls=jsonschema.Draft202012Validator)


def test_best_of_k_is_over_all_that_was_asked_for(folder: Path) -> None:
    report = evaluated(folder, "half.parquet", targets=folder / "asked.txt", samples=3)
    best = report["match_rate_best_of_3"]
    assert (best.value, best.n) == (0.5, ASKED)


def test_a_crystal_of_another_prediction_recalls_the_polymorph_that_nobody_predicted(tmp_path: Path) -> None:
    both = {c.id: c.unit_cell for c in load_bundled() if c.formula == "ZnS"}
    a, b = both
    write_cells(tmp_path / "truth.parquet", both)
    build_store(tmp_path / "truth.parquet", tmp_path / "truth")
    write_cells(tmp_path / "swapped.parquet", {a: both[b]})
    report = evaluate(
        tmp_path / "swapped.parquet",
        tmp_path / "truth",
        targets=[a, b],
        metrics=["csp"],
        cache=tmp_path / "cache",
    )
    assert report["match_rate"].value == 0.0
    assert (report["metre"].value, report["metre"].n) == (0.5, 2)


def test_two_sets_are_compared_on_all_that_was_asked_for(folder: Path) -> None:
    truth = folder / "truth.parquet"
    options = {"metrics": ["csp"], "cache": folder / "cache"}
    partly = evaluate_two(truth, folder / "half.parquet", folder / "truth", **options)
    assert partly.metrics["match_rate"].note == f"on the {ASKED // 2} questions both answer"
    whole = evaluate_two(
        truth, folder / "half.parquet", folder / "truth", targets=folder / "asked.txt", **options
    )
    compared = whole.metrics["match_rate"]
    assert compared.note == ""
    assert compared.difference is not None
    assert compared.difference.value == 0.5
    assert compared.difference.p_value == pytest.approx(scipy.stats.binomtest(ASKED // 2, ASKED // 2).pvalue)


def test_all_held_out_records_can_be_asked_for(reference_store: Store, tmp_path: Path) -> None:
    reference = Reference(reference_store, tmp_path)
    ids = target_ids("held-out", reference)
    assert list(ids) == [record.id for record in reference.held_out]
    assert target_ids([ids[1], ids[0], ids[1]], reference) == (ids[1], ids[0])


def test_numbers_as_names_are_names(folder: Path, tmp_path: Path) -> None:
    cells = [encode(c.unit_cell).crystal.unit_cell("primitive") for c in load_bundled()[:2]]
    write_cells(tmp_path / "truth.parquet", dict(zip(("11", "12"), cells)))
    build_store(tmp_path / "truth.parquet", tmp_path / "truth")
    write_cells(tmp_path / "one.parquet", {"x": cells[0]}, target_id=[11])
    report = evaluate(
        tmp_path / "one.parquet",
        tmp_path / "truth",
        targets=["11", "12"],
        metrics=["csp"],
        cache=tmp_path / "cache",
    )
    assert report.table.column("csp_target").to_pylist() == ["11", "12"]
    assert report["match_rate"].value == 0.5


def test_what_cannot_be_asked_for_is_refused_with_the_way_out(folder: Path, tmp_path: Path) -> None:
    names = (folder / "asked.txt").read_text().split()
    with pytest.raises(ConfigError, match=r"1 of 2 test structures are no records of .*: no-such"):
        evaluated(folder, "half.parquet", targets=[names[0], "no-such"])
    with pytest.raises(ConfigError, match=r"3 crystals are predictions .* not asked for .*: leave them out"):
        evaluated(folder, "half.parquet", targets=[names[0]])
    with pytest.raises(ConfigError, match="'held-out' or a text file"):
        evaluated(folder, "half.parquet", targets=str(tmp_path / "nothing.txt"))
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(ConfigError, match="No test structure is named in"):
        evaluated(folder, "half.parquet", targets=tmp_path / "empty.txt")
    with pytest.raises(ConfigError, match="records of a reference: name it too"):
        evaluate(folder / "half.parquet", targets=names, metrics=["csp"], cache=tmp_path)
    write_cells(
        tmp_path / "strangers.parquet",
        {"some": UnitCell(4 * np.eye(3), np.zeros((1, 3)), np.array([29]))},
    )
    with pytest.raises(
        ConfigError, match=f"one of the {ASKED} test structures asked for: give a column target_id"
    ):
        evaluate(
            tmp_path / "strangers.parquet", folder / "truth", targets=names, metrics=["csp"], cache=tmp_path
        )
