"""What was asked of a composition or a property, and whether it came."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fourteen_atoms import cell_of, real_atoms

from nucleate.crystal import Crystal
from nucleate.data import Store
from nucleate.errors import ConfigError
from nucleate.evaluation import PropertyTarget, evaluate
from nucleate.evaluation.own_formats import condition_asked
from nucleate.evaluation.summary import summary_schema


def _set(folder: Path, **asked: Sequence[object]) -> Path:
    """The fourteen crystals of the fixtures as a table, with what was asked of each."""
    cells = [cell_of(atoms) for atoms in real_atoms()]
    table = {
        "numbers": [c.atomic_numbers.tolist() for c in cells],
        "lattice": [c.lattice.ravel().tolist() for c in cells],
        "frac_coords": [c.frac_coords.ravel().tolist() for c in cells],
        **{name: list(values) for name, values in asked.items()},
    }
    pq.write_table(pa.table(table), folder / "asked.parquet")
    return folder / "asked.parquet"


def _density(crystals: Sequence[Crystal]) -> list[float]:
    return [crystal.density for crystal in crystals]


def test_compositions_that_were_asked_for_are_judged(tmp_path: Path) -> None:
    formulas = ["Cu"] * 7 + [None] * 5 + ["NaCl", "Zn2S2"]
    atoms = ["1"] * 14
    path = _set(tmp_path, formula_asked=formulas, num_atoms_asked=atoms)
    report = evaluate(path, metrics=["condition"], cache=tmp_path / "cache")
    obeyed = report.table.column("formula_obeyed").to_pylist()
    assert obeyed == [True] + [False] * 6 + [None] * 5 + [True, True]
    assert (report["formula_obeyed"].value, report["formula_obeyed"].n) == (pytest.approx(3 / 9), 9)
    oracle = [len(a) == 1 for a in real_atoms()]
    assert report.table.column("num_atoms_obeyed").to_pylist() == oracle
    assert report["condition_obeyed"].value == pytest.approx(
        np.mean([o and f is not False for o, f in zip(oracle, obeyed)])
    )
    assert "elements_obeyed" not in report.metrics


def test_nothing_asked_gives_no_metric_and_nonsense_is_named(tmp_path: Path) -> None:
    assert not evaluate(_set(tmp_path), metrics=["condition"], cache=tmp_path).metrics
    path = _set(tmp_path, formula_asked=["not a formula"] * 14)
    problems = (
        evaluate(path, metrics=["condition"], cache=tmp_path).table.column("condition_problem").to_pylist()
    )
    assert all("is not a formula" in problem for problem in problems)


def test_a_property_in_a_range_beside_the_rate_of_chance(tmp_path: Path, reference_store: Store) -> None:
    dense = PropertyTarget("density", _density, "g/cm³", low=8.0, predicted_by="the crystal itself")
    report = evaluate(
        _set(tmp_path), reference_store.location, metrics=["condition"], properties=[dense], cache=tmp_path
    )
    oracle = [a.get_masses().sum() / a.get_volume() * 1.66053906660 for a in real_atoms()]
    hits = report["density_hit_rate"]
    assert hits.value == pytest.approx(np.mean([d >= 8 for d in oracle]))
    theirs = [c.density for c in reference_store.split("test").iter_crystals()]
    assert hits.reference == pytest.approx(np.mean([d >= 8 for d in theirs]))
    assert hits.reference_n == len(theirs)
    short = [min(d - 8, 0) for d in oracle]
    assert report["density_mae"].value == pytest.approx(np.mean(np.abs(short)), rel=1e-3)
    assert report.table.column("density_predicted").to_pylist() == pytest.approx(oracle, rel=1e-3)
    jsonschema.validate(report.to_json(), summary_schema())


def test_targets_may_come_along_with_each_crystal(tmp_path: Path) -> None:
    oracle = [a.get_masses().sum() / a.get_volume() * 1.66053906660 for a in real_atoms()]
    path = _set(tmp_path, density_asked=[d + (1 if i % 2 else 0.01) for i, d in enumerate(oracle)])
    near = PropertyTarget("density", _density, tolerance=0.5)
    report = evaluate(path, metrics=["condition"], properties=[near], cache=tmp_path)
    assert report["density_hit_rate"].value == pytest.approx(0.5)
    assert report["density_bias"].value == pytest.approx(-0.505, abs=0.01)
    with pytest.raises(ConfigError, match="say with tolerance"):
        evaluate(
            path, metrics=["condition"], properties=[PropertyTarget("density", _density)], cache=tmp_path
        )
    with pytest.raises(ConfigError, match="a target or for a range"):
        PropertyTarget("density", _density, target=1.0, low=0.0, tolerance=1.0)
    with pytest.raises(ConfigError, match="needs a tolerance"):
        PropertyTarget("density", _density, target=1.0)


def test_without_a_target_there_is_the_mean(tmp_path: Path) -> None:
    report = evaluate(
        _set(tmp_path),
        metrics=["condition"],
        properties=[PropertyTarget("density", _density)],
        cache=tmp_path,
    )
    assert report["density_mean"].n == 14
    assert report["density_mean"].value == pytest.approx(np.mean(report.table.column("density").to_numpy()))


def test_the_condition_of_a_run_is_told_in_the_words_of_the_families(tmp_path: Path) -> None:
    condition = {
        "allowed": ["Sr", "Ti", "O"],
        "elements": ["Ti"],
        "num_atoms": [4, 12],
        "space_groups": [221],
        "properties": {"band_gap": 1.5, "energy": [-2, 0]},
    }
    (tmp_path / "run.json").write_text(f'{{"asked": {{"condition": {condition}}}}}'.replace("'", '"'))
    assert condition_asked(tmp_path) == {
        "elements_asked": "Sr-Ti-O",
        "required_elements_asked": "Ti",
        "num_atoms_asked": "4-12",
        "space_groups_asked": "221",
        "band_gap_asked": 1.5,
        "energy_asked": "[-2, 0]",
    }
    assert condition_asked(tmp_path / "none") == {}
