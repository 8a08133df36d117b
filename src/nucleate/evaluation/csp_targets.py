"""Which test structure a predicted crystal is a prediction of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from nucleate.crystal import Crystal, UnitCell
from nucleate.errors import StoreError
from nucleate.evaluation.composition_validity import smact_verdict
from nucleate.evaluation.own_formats import store_cell
from nucleate.evaluation.reduced_cell import ReducedCell, reduce_cell
from nucleate.evaluation.reference import Reference
from nucleate.evaluation.structure_validity import is_structurally_valid
from nucleate.evaluation.surroundings import surroundings

TARGET_COLUMN = "target_id"
_KEPT = 4096


@dataclass(frozen=True, eq=False)
class Target:
    """A test structure.

    Attributes:
        id: its id in the reference.
        row: its row in the reference's store.
        crystal: the stored crystal.
        cell: the source's own cell where the store keeps frames, else the primitive cell.
        reduced: that cell, reduced for matching.
        valid: whether it passes the structural and compositional checks of published evaluations.
    """

    id: str
    row: int
    crystal: Crystal
    cell: UnitCell
    reduced: ReducedCell
    valid: bool


class Targets:
    """The records of a reference by what predictions say of themselves (``names_of_target``).

    Args:
        reference: where the test structures are.
        min_distance: shortest distance (Å) of a valid crystal.
        min_volume: smallest volume (Å³) of a valid cell.
    """

    def __init__(self, reference: Reference, *, min_distance: float, min_volume: float) -> None:
        self._store = reference.store.whole()
        self._limits = {"min_distance": min_distance, "min_volume": min_volume}
        self._by_id = lru_cache(maxsize=_KEPT)(self._find)

    def of(self, record_id: str, given: Mapping[str, Any]) -> Target | None:
        """The test structure a prediction names, None where no record has such an id."""
        found = (self._by_id(name) for name in names_of_target(record_id, given))
        return next((target for target in found if target is not None), None)

    def _find(self, record_id: str) -> Target | None:
        if not record_id:
            return None
        try:
            record = self._store.get(record_id)
        except StoreError:
            # No record of this id; damage to the store shows when the shard is read for anything else.
            return None
        cell = store_cell(self._store, record.row)
        valid = is_valid(cell, **self._limits)
        return Target(record.id, record.row, record.crystal, cell, reduce_cell(cell), valid)


def names_of_target(record_id: str, given: Mapping[str, Any]) -> tuple[str, ...]:
    """What the test structure of a prediction may be called; the first that is the id of a record is meant.

    1. the column ``target_id`` that came with it, and then nothing else;
    2. its id;
    3. its id up to the last ``_``: ``mp-1234_0``, ``mp-1234_1`` are samples of ``mp-1234``.
    """
    asked = given.get(TARGET_COLUMN)
    return (record_id, record_id.rpartition("_")[0]) if asked is None else (str(asked),)


def is_valid(cell: UnitCell, *, min_distance: float, min_volume: float) -> bool:
    """Structural and compositional validity as in the published evaluations."""
    counts: dict[int, int] = {}
    for z in cell.atomic_numbers.tolist():
        counts[z] = counts.get(z, 0) + 1
    if not smact_verdict(counts).valid:
        return False
    return is_structurally_valid(cell, surroundings(cell), min_distance=min_distance, min_volume=min_volume)
