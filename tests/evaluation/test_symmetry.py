"""The family ``symmetry``: groups by two programs, asked against found, pseudo-symmetry, P1 and templates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import spglib
from ase.build import bulk

from nucleate.crystal import UnitCell
from nucleate.data import Store
from nucleate.evaluation.candidate import Candidate, make_candidate
from nucleate.evaluation.context import Context
from nucleate.evaluation.metric import Metric
from nucleate.evaluation.reference import Reference
from nucleate.evaluation.symmetry import COLUMNS, family, symmetry_row
from nucleate.evaluation.symmetry_checks import asked_against_found, find_symmetry, number_from

SYMPRECS = (0.1, 0.01, 0.001)


def _table(candidates: list[Candidate], context: Context) -> pa.Table:
    rows = family().rows(candidates, context)
    table = pa.table({c.name: pa.array([row.get(c.name) for row in rows], type=c.type) for c in COLUMNS})
    keys = [None if c.crystal is None else c.crystal.prototype_key for c in candidates]
    table = table.append_column("prototype_key", pa.array(keys, type=pa.string()))
    for name, values in family().across(None, table, context).items():
        index = table.column_names.index(name)
        table = table.set_column(index, name, pa.array(values, type=table.column(name).type))
    return table


def _summary(candidates: list[Candidate], context: Context) -> dict[str, Metric]:
    metrics = family().summary(_table(candidates, context), context)
    assert len({m.name for m in metrics}) == len(metrics)
    return {m.name: m for m in metrics}


def _rattled(candidates: list[Candidate], amount: float) -> list[Candidate]:
    """Doubled cells whose atoms are displaced by about ``amount`` Å."""
    rng, made = np.random.default_rng(0), []
    for c in candidates:
        if c.encoded is None or c.unit_cell is None:
            continue
        half = c.unit_cell.frac_coords * [0.5, 1, 1]
        lattice = np.diag([2.0, 1, 1]) @ c.unit_cell.lattice
        coords = np.concatenate([half, half + np.array([0.5, 0, 0])])
        coords = coords + amount * rng.normal(size=coords.shape) @ np.linalg.inv(lattice)
        cell = UnitCell(lattice, coords, np.tile(c.unit_cell.atomic_numbers, 2))
        made.append(make_candidate(c.row, cell, id=c.id, file=c.file))
    return made


def test_groups_are_those_of_spglib(candidates: list[Candidate]) -> None:
    for candidate in candidates[:14]:
        cell = candidate.unit_cell
        row = symmetry_row(candidate, SYMPRECS)
        given = (cell.lattice.tolist(), cell.frac_coords.tolist(), cell.atomic_numbers.tolist())
        expected = [spglib.get_symmetry_dataset(given, symprec=s).number for s in SYMPRECS]
        assert row["space_groups_moyopy"] == row["space_groups_spglib"] == expected
        assert row["programs_agree"]
        assert not row["pseudo_symmetric"]


def test_nearly_symmetric_crystals_are_pseudo_symmetric() -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    cell = UnitCell(np.array(atoms.cell), atoms.get_scaled_positions(), np.array(atoms.numbers))
    moved = cell.frac_coords.copy()
    moved[0, 2] += 0.03 / 5.64
    found = find_symmetry(UnitCell(cell.lattice, moved, cell.atomic_numbers), SYMPRECS)
    assert found.moyopy[0].number == 225
    assert found.moyopy[-1].number != 225
    assert found.is_pseudo_symmetric
    assert found.gain == found.moyopy[0].num_operations / found.moyopy[-1].num_operations > 8


@pytest.mark.parametrize(
    ("asked", "found", "kept"),
    [
        (225, 225, "exact"),
        (76, 78, "exact"),  # mirror images
        (152, 154, "exact"),
        (216, 225, "higher"),
        (1, 62, "higher"),
        (221, 229, "higher"),  # Pm-3m in a cell that is twice the primitive one of Im-3m
        (225, 216, "other"),
        (62, 14, "other"),
        (225, None, "none"),
    ],
)
def test_asked_against_found(asked: int, found: int | None, kept: str) -> None:
    assert asked_against_found(asked, found) == kept


def test_numbers_that_came_along() -> None:
    assert [number_from(v) for v in (225, 225.0, "62", np.int64(3))] == [225, 225, 62, 3]
    assert [number_from(v) for v in (None, "Fm-3m", 0, 231, 1.5, float("nan"))] == [None] * 6


def test_unreadable_crystals_count_against_the_generator(candidates: list[Candidate]) -> None:
    found = _summary(candidates, Context(None))
    assert found["p1_share"].value == pytest.approx(2 / 16)  # the clash and the unreadable one
    assert found["programs_agree"].value == 1
    # 225 was asked of fourteen crystals; five structures of copper's kind and rock salt have it.
    groups = [c.crystal.space_group_number for c in candidates[:14]]
    assert found["symmetry_exact_at_0.01"].value == pytest.approx(groups.count(225) / 14)
    assert found["symmetry_exact_at_0.01"].n == 14
    assert found["accidental_symmetry_at_0.01"].value == 0


def test_rattled_crystals_lose_their_symmetry_at_the_tolerance_of_the_rattle(
    candidates: list[Candidate],
) -> None:
    small = _summary(_rattled(candidates, 0.01), Context(None))
    assert small["p1_share"].value == 0
    assert small["p1_share_at_0.001"].value > 0.3  # two atoms always have a centre of inversion between them
    assert small["pseudo_symmetric"].value > 0.9
    large = _summary(_rattled(candidates, 0.3), Context(None))
    assert large["pseudo_symmetric"].value < 0.5  # so far off that no tolerance sees it


def test_templates_and_groups_against_a_reference(
    candidates: list[Candidate], reference_store: Store, tmp_path: Path
) -> None:
    context = Context(Reference(reference_store, tmp_path))
    real = _summary(candidates[:14], context)
    assert real["template_novelty"].value < 0.3
    assert real["space_group_js"].value < 0.4
    broken = _summary(_rattled(candidates, 0.3), context)
    assert broken["template_novelty"].value == 1
    for name in ("space_group_js", "space_group_tv", "w_space_group"):
        assert broken[name].value > 2 * real[name].value, name
    low, high = real["space_group_tv"].ci95
    assert low <= real["space_group_tv"].value <= high


def test_without_a_reference_nothing_is_compared(candidates: list[Candidate]) -> None:
    found = _summary(candidates, Context(None))
    assert "space_group_chi2" not in found
    assert "template_novelty" not in found
