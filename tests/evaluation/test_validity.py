"""The family ``validity``: rows of good, damaged and unreadable crystals, averages, and the negative controls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from nucleate.crystal import UnitCell
from nucleate.data import Store
from nucleate.evaluation.candidate import Candidate, make_candidate
from nucleate.evaluation.context import Context
from nucleate.evaluation.metric import Metric
from nucleate.evaluation.reference import Reference
from nucleate.evaluation.validity import family
from nucleate.evaluation.validity_checks import CHECKS, COLUMNS


def _table(candidates: list[Candidate], context: Context) -> pa.Table:
    """Rows and columns across the set, as the evaluation makes them."""
    rows = family().rows(candidates, context)
    table = pa.table({c.name: pa.array([row.get(c.name) for row in rows], type=c.type) for c in COLUMNS})
    for name, values in family().across(None, table, context).items():
        index = table.column_names.index(name)
        table = table.set_column(index, name, pa.array(values, type=table.column(name).type))
    return table


def _summary(candidates: list[Candidate], context: Context) -> dict[str, Metric]:
    metrics = family().summary(_table(candidates, context), context)
    assert len({m.name for m in metrics}) == len(metrics)
    return {m.name: m for m in metrics}


def _changed(candidates: list[Candidate], change: Callable[[UnitCell], UnitCell]) -> list[Candidate]:
    return [
        make_candidate(c.row, change(c.unit_cell), id=c.id, file=c.file)
        for c in candidates
        if c.unit_cell is not None and c.encoded is not None
    ]


def _compressed(cell: UnitCell) -> UnitCell:
    return UnitCell(0.6 * cell.lattice, cell.frac_coords, cell.atomic_numbers)


def test_every_column_is_declared_and_damaged_crystals_fail(candidates: list[Candidate]) -> None:
    table = _table(candidates, Context(None))
    assert table.column_names == [c.name for c in COLUMNS]
    clash, broken = table.num_rows - 2, table.num_rows - 1
    for name in (*CHECKS, "structurally_valid", "compositionally_valid"):
        assert table.column(name)[broken].as_py() is False
    assert table.column("structurally_valid")[clash].as_py() is False
    assert table.column("compositionally_valid")[clash].as_py() is True  # NaCl it is
    assert "The file is empty." in table.column("validity_problems")[broken].as_py()
    good = table.slice(0, clash)
    for name in CHECKS:
        assert all(good.column(name).to_pylist()), name


def test_failures_count_against_the_generator(candidates: list[Candidate]) -> None:
    found = _summary(candidates, Context(None))
    assert found["structural_validity"].value == pytest.approx(14 / 16)
    assert found["structural_validity"].n == 16
    assert found["compositional_validity"].value == pytest.approx(15 / 16)
    assert found["validity"].value == pytest.approx(14 / 16)
    assert found["physical_validity"].value == pytest.approx(14 / 16)
    # Metals, then the semiconductors, the salts and the clash; the unreadable one is in no class.
    shares = [found[f"share_{kind}"].value for kind in ("element", "single_valence", "alloy")]
    assert shares == pytest.approx([12 / 16, 3 / 16, 0])
    assert "SMACT 2.2.1" in found["compositional_validity"].protocol


def test_compressed_crystals_move_what_they_must_and_nothing_else(candidates: list[Candidate]) -> None:
    real = _summary(_changed(candidates, lambda cell: cell), Context(None))
    pressed = _summary(_changed(candidates, _compressed), Context(None))
    for name in ("pair_distance_validity", "volume_validity", "physical_validity"):
        assert real[name].value == 1
        assert pressed[name].value < 0.4, name
    assert pressed["rare_bonds"].value > real["rare_bonds"].value + 0.4
    assert pressed["w_bond_length"].value > real["w_bond_length"].value + 0.3
    for name in ("compositional_validity", "charge_validity", "w_bond_angle", "share_element"):
        assert pressed[name].value == pytest.approx(real[name].value), name


def test_supercells_change_nothing(candidates: list[Candidate]) -> None:
    def doubled(cell: UnitCell) -> UnitCell:
        half = cell.frac_coords * [0.5, 1, 1]
        return UnitCell(
            np.diag([2.0, 1, 1]) @ cell.lattice,
            np.concatenate([half, half + np.array([0.5, 0, 0])]),
            np.tile(cell.atomic_numbers, 2),
        )

    real = _summary(_changed(candidates, lambda cell: cell), Context(None))
    large = _summary(_changed(candidates, doubled), Context(None))
    for name, metric in real.items():
        if name == "cell_shape_validity":  # the doubled cell is another cell
            continue
        assert large[name].value == pytest.approx(metric.value, abs=1e-9), name


def test_bonds_are_held_against_the_reference(
    candidates: list[Candidate], reference_store: Store, tmp_path: Path
) -> None:
    context = Context(Reference(reference_store, tmp_path))
    found = _summary(candidates[:14], context)
    assert "training part" in found["rare_bonds"].protocol
    # Forty crystals of fourteen kinds: no element pair has twenty of them, and that is said.
    assert found["w_bond_length"].value is None
    assert list(tmp_path.rglob("bond_statistics*.npz"))


def test_an_empty_set_has_no_values() -> None:
    found = _summary([], Context(None))
    assert found["structural_validity"].value is None
    assert found["w_bond_length"].value is None
