"""Crystal structure prediction against plain loops over pymatgen's StructureMatcher."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from pymatgen.analysis.structure_matcher import StructureMatcher
from small_cells import small_cells, write_cells

from nucleate.crystal import UnitCell
from nucleate.crystal.convert import unit_cell_to_pymatgen
from nucleate.data import Store, build_store
from nucleate.data.bundled import bundled_crystal, load_bundled
from nucleate.evaluation.candidate_store import CandidateStore
from nucleate.evaluation.context import Context
from nucleate.evaluation.csp import csp_matcher, family
from nucleate.evaluation.csp_errors import pair_errors
from nucleate.evaluation.csp_recall import best_rms, sample_numbers
from nucleate.evaluation.csp_summary import TargetScore, unasked_note
from nucleate.evaluation.matcher import Matcher
from nucleate.evaluation.metric import Metric
from nucleate.evaluation.reading import store_candidates
from nucleate.evaluation.reduced_cell import reduce_cell
from nucleate.evaluation.reference import Reference
from nucleate.evaluation.run import evaluate
from nucleate.evaluation.settings import Settings

NUM = 9
STOL = 0.5
ORACLE = StructureMatcher(ltol=0.3, stol=STOL, angle_tol=10)


def distorted(cell: UnitCell, size: float, rng: np.random.Generator) -> UnitCell:
    lattice = cell.lattice @ (np.eye(3) + rng.normal(size=(3, 3)) * 0.04 * size)
    step = rng.normal(size=cell.frac_coords.shape) * 0.3 * size
    return UnitCell(lattice, cell.frac_coords + step @ np.linalg.inv(lattice), cell.atomic_numbers)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    folder = tmp_path_factory.mktemp("tests")
    write_cells(folder / "cells.parquet", small_cells(NUM))
    build_store(folder / "cells.parquet", folder / "store")
    return Reference(Store.open(folder / "store"), folder / "cache")


def scored(
    candidates: CandidateStore, context: Context
) -> tuple[pa.Table, dict[str, Metric], list[dict[str, object]]]:
    table = candidates.base_table()
    rows = family().rows(list(candidates), context)
    for column in family().columns:
        table = table.append_column(column.name, pa.array([r.get(column.name) for r in rows], column.type))
    for name, values in family().across(candidates, table, context).items():
        field = table.schema.field(name)
        table = table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))
    return table, {m.name: m for m in family().summary(table, context)}, rows


@pytest.fixture(scope="module")
def predictions() -> dict[str, UnitCell]:
    """Three samples of each test structure: slightly, strongly and hardly distorted."""
    rng = np.random.default_rng(5)
    made = {}
    for name, cell in small_cells(NUM).items():
        for k, size in enumerate((1.0, 3.0, 0.2)):
            made[f"{name}_{k}"] = distorted(cell, size, rng)
    return made


def test_rates_equal_a_plain_computation(
    reference: Reference, predictions: dict[str, UnitCell], tmp_path: Path
) -> None:
    path = write_cells(tmp_path / "samples.parquet", predictions)
    candidates = store_candidates(path, str(tmp_path / "c")).candidates
    context = Context(reference, Settings(samples=3), cache=tmp_path)
    table, metrics, _ = scored(candidates, context)
    rms = {}
    for name, cell in predictions.items():
        truth = unit_cell_to_pymatgen(small_cells(NUM)[name.rpartition("_")[0]])
        found = ORACLE.get_rms_dist(unit_cell_to_pymatgen(cell), truth)
        rms[name] = np.nan if found is None else found[0]
    assert table.column("csp_target").to_pylist() == [name.rpartition("_")[0] for name in rms]
    ours = [np.nan if v is None else v for v in table.column("csp_rms").to_pylist()]
    np.testing.assert_allclose(ours, list(rms.values()), atol=2e-3)

    by_target = np.array(list(rms.values())).reshape(-1, 3)
    first, matched = by_target[:, 0], ~np.isnan(by_target)
    assert metrics["match_rate"].value == pytest.approx(matched[:, 0].mean())
    assert metrics["match_rate_per_sample"].value == pytest.approx(matched.mean())
    assert metrics["match_rate_best_of_3"].value == pytest.approx(matched.any(axis=1).mean())
    assert metrics["match_rmse"].value == pytest.approx(np.nanmean(first), abs=1e-3)
    everything = np.where(np.isnan(first), STOL, first).mean()
    assert metrics["match_rmse_all"].value == pytest.approx(everything, abs=1e-3)
    best = np.where(matched, by_target, np.inf).min(axis=1)
    assert metrics["match_rmse_all_best_of_3"].value == pytest.approx(np.minimum(best, STOL).mean(), abs=1e-3)
    assert metrics["match_rate"].n == NUM
    assert 0.2 < matched[:, :2].mean() < 0.95  # a control: both outcomes occur
    kinds = [m for name, m in metrics.items() if name.startswith("match_rate_atoms")]
    assert sum(m.n for m in kinds) == NUM
    systems = set(table.column("csp_target_system").to_pylist())
    assert sum(metrics[f"match_rate_{s}"].n for s in systems) == NUM
    assert sum(m.n for name, m in metrics.items() if name.startswith("match_rate_free")) == NUM


def test_a_match_of_an_invalid_crystal_counts_only_without_the_check(
    reference: Reference, tmp_path: Path
) -> None:
    name, cell = next((n, c) for n, c in small_cells(NUM).items() if len(set(c.atomic_numbers.tolist())) == 2)
    tiny = UnitCell(cell.lattice * 0.15, cell.frac_coords, cell.atomic_numbers)
    candidates = store_candidates(write_cells(tmp_path / "s.parquet", {name: tiny}), str(tmp_path / "c"))
    _, metrics, rows = scored(candidates.candidates, Context(reference, cache=tmp_path))
    if rows[0]["csp_match"]:
        assert metrics["match_rate"].value == 1.0
    assert metrics["match_rate_valid"].value == 0.0


def test_a_column_of_targets_comes_before_the_id(reference: Reference, tmp_path: Path) -> None:
    names = list(small_cells(NUM))[:3]
    cells = {
        "sample-a": small_cells(NUM)[names[1]],
        names[0]: small_cells(NUM)[names[2]],
        "stranger": small_cells(NUM)[names[0]],
    }
    path = write_cells(tmp_path / "s.parquet", cells, target_id=[names[1], names[2], "no-such-structure"])
    table, metrics, _ = scored(
        store_candidates(path, str(tmp_path / "c")).candidates, Context(reference, cache=tmp_path)
    )
    assert table.column("csp_target").to_pylist() == [names[1], names[2], None]
    assert table.column("csp_match").to_pylist() == [True, True, None]
    assert metrics["match_rate"].value == 1.0
    assert metrics["match_rate"].n == 2
    assert metrics["match_rmse"].value == pytest.approx(0.0, abs=1e-6)
    for error in ("coordinates", "bonds", "lengths", "angles"):
        assert metrics[f"csp_{error}_mse"].value == pytest.approx(0.0, abs=1e-6)


def test_unreadable_and_foreign_crystals_count_as_unmatched(reference: Reference, tmp_path: Path) -> None:
    names = list(small_cells(NUM))[:4]
    cell = small_cells(NUM)[names[0]]
    clash = UnitCell(cell.lattice, np.zeros((2, 3)), np.array([11, 17]))
    other = UnitCell(cell.lattice, cell.frac_coords, np.full(cell.num_atoms, 92))
    cells = {names[0]: cell, names[1]: clash, names[2]: other}
    candidates = store_candidates(write_cells(tmp_path / "s.parquet", cells), str(tmp_path / "c")).candidates
    _, metrics, rows = scored(candidates, Context(reference, cache=tmp_path))
    assert [row["csp_match"] for row in rows] == [True, False, False]
    assert metrics["match_rate"].value == pytest.approx(1 / 3)
    assert metrics["match_rmse_all"].value == pytest.approx(2 * STOL / 3)


def test_without_targets_the_reason_stands_in_the_metric(reference: Reference, tmp_path: Path) -> None:
    candidates = store_candidates(list(small_cells(NUM).values())[:2], str(tmp_path / "c")).candidates
    for known, words in ((reference, "target_id"), (None, "no reference")):
        _, metrics, _ = scored(candidates, Context(known, cache=tmp_path))
        assert metrics["match_rate"].value is None
        assert words in metrics["match_rate"].note


def test_recall_rewards_the_polymorphs_in_any_order_and_the_match_rate_does_not(tmp_path: Path) -> None:
    """Two polymorphs predicted in exchanged order: none matches its own, both are found."""
    both = {c.id: c.unit_cell for c in load_bundled() if c.formula == "ZnS"}
    a, b = both
    assert not ORACLE.fit(unit_cell_to_pymatgen(both[a]), unit_cell_to_pymatgen(both[b]))
    write_cells(tmp_path / "cells.parquet", both)
    build_store(tmp_path / "cells.parquet", tmp_path / "store")
    reference = Reference(Store.open(tmp_path / "store"), tmp_path / "cache")
    for swapped, rate, recall in ((True, 0.0, 1.0), (False, 1.0, 1.0)):
        cells = {a: both[b], b: both[a]} if swapped else {a: both[a], b: both[b]}
        path = write_cells(tmp_path / f"{swapped}.parquet", cells)
        candidates = store_candidates(path, str(tmp_path / f"c-{swapped}")).candidates
        _, metrics, _ = scored(candidates, Context(reference, cache=tmp_path / f"{swapped}"))
        assert metrics["match_rate"].value == rate
        assert metrics["metre"].value == recall
        assert metrics["crmse"].value == pytest.approx(0.0, abs=1e-6)
    # The same polymorph twice: half of the references are matched, the other counts the tolerance.
    path = write_cells(tmp_path / "twice.parquet", {a: both[a], b: both[a]})
    candidates = store_candidates(path, str(tmp_path / "c-twice")).candidates
    _, metrics, _ = scored(candidates, Context(reference, cache=tmp_path / "twice"))
    assert metrics["metre"].value == 0.5
    assert metrics["crmse"].value == pytest.approx(STOL / 2)


def test_recall_equals_a_double_loop(rng: np.random.Generator) -> None:
    cell = bundled_crystal("tio2-rutile").unit_cell
    truths = [distorted(cell, size, rng) for size in (0.0, 1.0, 4.0)]
    guesses = [distorted(cell, size, rng) for size in (0.5, 2.0, 4.0)]
    ours = best_rms(
        [reduce_cell(c) for c in guesses], [reduce_cell(c) for c in truths], csp_matcher(Settings())
    )
    for truth, found in zip(truths, ours):
        pairs = [ORACLE.get_rms_dist(unit_cell_to_pymatgen(g), unit_cell_to_pymatgen(truth)) for g in guesses]
        values = [p[0] for p in pairs if p is not None]
        assert (found is None) == (not values)
        if found is not None:
            assert found == pytest.approx(min(values), abs=1e-3)


def test_errors_of_a_known_distortion() -> None:
    """A cell stretched by 2 % and one atom moved: errors by hand."""
    salt = UnitCell(4.0 * np.eye(3), np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]]), np.array([55, 17]))
    moved = UnitCell(salt.lattice * 1.02, salt.frac_coords, salt.atomic_numbers)
    true, predicted = reduce_cell(salt), reduce_cell(moved)
    match = Matcher().best_match(predicted, true)
    assert match is not None
    errors = pair_errors(predicted, true, match)
    assert errors.lengths == pytest.approx(0.08**2)
    assert errors.angles == pytest.approx(0.0, abs=1e-9)
    assert errors.coordinates == pytest.approx(0.0, abs=1e-9)
    assert errors.volume_ratio == pytest.approx(1.02**3)
    # Brunner's shell: eight of the other element at sqrt(3)/2 a and six of the same at a.
    assert errors.bonds == pytest.approx(0.02**2 * (8 * 12 + 6 * 16) / 14, rel=1e-6)

    up = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.05]])
    predicted = reduce_cell(UnitCell(salt.lattice, salt.frac_coords + up, salt.atomic_numbers))
    match = Matcher().best_match(predicted, true)
    assert match is not None
    errors = pair_errors(predicted, true, match)
    # 0.2 Å between the two atoms: each is off by half of it once the mean is taken out.
    assert errors.coordinates == pytest.approx(0.01, rel=1e-6)
    assert errors.lengths == pytest.approx(0.0, abs=1e-9)
    lengths = np.array([np.sqrt(8 + z * z) for z in (2.2, 1.8)])
    assert errors.bonds == pytest.approx(8 / 14 * np.mean((lengths - 12**0.5) ** 2), rel=1e-6)


def test_given_energies_of_both_sides_are_compared(reference: Reference, tmp_path: Path) -> None:
    names = list(small_cells(NUM))[:5]
    path = write_cells(
        tmp_path / "s.parquet",
        {name: small_cells(NUM)[name] for name in names},
        energy_per_atom=[-1.0, -2.0, -3.0, -4.0, None],
        target_energy_per_atom=[-1.1, -2.0, -2.9, None, -1.0],
        energy_above_hull=[0.15, 0.05, 0.0, 0.2, None],
        target_energy_above_hull=[0.05, 0.05, 0.12, 0.0, 0.0],
    )
    candidates = store_candidates(path, str(tmp_path / "c")).candidates
    table, metrics, _ = scored(candidates, Context(reference, cache=tmp_path))
    given = [name for name in table.column_names if name.startswith("given.")]
    assert len(given) == 4
    assert metrics["csp_energy_difference"].value == pytest.approx(0.0)
    assert metrics["csp_energy_error"].value == pytest.approx(0.2 / 3)
    # The third was not stable before; the last has lost its stability with its energy.
    assert metrics["csp_stability_loss_0.1"].value == pytest.approx(3 / 4)
    assert "given" in metrics["csp_energy_difference"].protocol


def test_held_out_records_that_nobody_predicted_are_told(reference_store: Store, tmp_path: Path) -> None:
    reference = Reference(reference_store, tmp_path)
    held_out = reference.held_out.rows.tolist()

    def score(row: int) -> TargetScore:
        return TargetScore(row, 2, 225, "cubic", 0, np.array([0.1]), np.array([True]), 0.1)

    context = Context(reference, cache=tmp_path)
    note = unasked_note([score(row) for row in held_out[:3]], context)
    assert note.startswith(f"3 of {len(held_out)} held-out records are named, the others are not counted")
    assert "--targets" in note
    assert not unasked_note([score(row) for row in held_out], context)
    other = next(row for row in range(len(reference_store)) if row not in held_out)
    assert not unasked_note([score(other)], context)


def test_samples_are_numbered_in_order() -> None:
    assert sample_numbers([7, 3, 7, None, 7, 3]) == [0, 0, 1, None, 2, 1]


def test_energies_of_the_test_structures_come_from_the_same_potential(tmp_path: Path) -> None:
    """Copper predicted as bcc lies above fcc copper by EMT, silver predicted right lies nowhere above."""
    fcc, bcc = (
        np.array(rows) / 2
        for rows in ([[0, 1, 1], [1, 0, 1], [1, 1, 0]], [[-1, 1, 1], [1, -1, 1], [1, 1, -1]])
    )

    def metal(lattice: np.ndarray, z: int) -> UnitCell:
        return UnitCell(lattice, np.zeros((1, 3)), np.array([z]))

    write_cells(tmp_path / "cells.parquet", {"copper": metal(3.6 * fcc, 29), "silver": metal(4.1 * fcc, 47)})
    build_store(tmp_path / "cells.parquet", tmp_path / "store")
    predicted = {"copper_0": metal(2.9 * bcc, 29), "silver_0": metal(4.1 * fcc, 47)}
    write_cells(tmp_path / "s.parquet", predicted)
    report = evaluate(
        tmp_path / "s.parquet",
        tmp_path / "store",
        metrics=["stability", "csp"],
        settings=Settings(potential="ase.calculators.emt:EMT"),
        cache=tmp_path / "cache",
    )
    assert not report.problems
    copper, silver = report.table.column("csp_energy_difference").to_pylist()
    relaxed = (
        Atoms("Cu", cell=3.59 * fcc, pbc=True, calculator=EMT()),
        Atoms("Cu", cell=2.86 * bcc, pbc=True, calculator=EMT()),
    )
    expected = relaxed[1].get_potential_energy() - relaxed[0].get_potential_energy()
    assert copper == pytest.approx(expected, abs=5e-3)
    assert silver == pytest.approx(0.0, abs=1e-6)
    assert report.table.column("csp_match").to_pylist() == [False, True]
    assert set(report.table.column("csp_energy_source").to_pylist()) == {"ase.calculators.emt:EMT"}
