"""Many cells end to end in a few arrays: small to send to a worker, cheap to hold by the hundred thousand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nucleate.crystal import UnitCell
from nucleate.data.arrays import CrystalArrays
from nucleate.evaluation.reduced_cell import ReducedCell, reduce_cell
from nucleate.shapes import Float, Int


@dataclass(frozen=True, eq=False)
class PackedCells:
    """Cells one after the other; sites of cell ``i`` are ``offsets[i]`` to ``offsets[i + 1]``.

    Attributes:
        lattices: rows a, b, c of each cell in Å.
        offsets: first site of each cell, and the end of the last.
        frac_coords: of all sites.
        atomic_numbers: of all sites.
    """

    lattices: Float[np.ndarray, "cells 3 3"]
    offsets: Int[np.ndarray, "ends"]
    frac_coords: Float[np.ndarray, "sites 3"]
    atomic_numbers: Int[np.ndarray, "sites"]

    @classmethod
    def of(cls, cells: Sequence[UnitCell | ReducedCell]) -> PackedCells:
        """The cells, packed."""
        counts = [len(cell.atomic_numbers) for cell in cells]
        return cls(
            np.array([cell.lattice for cell in cells], dtype=float).reshape(-1, 3, 3),
            np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64),
            np.concatenate([np.zeros((0, 3)), *(cell.frac_coords for cell in cells)]),
            np.concatenate([np.zeros(0, np.int64), *(cell.atomic_numbers for cell in cells)]).astype(
                np.int16
            ),
        )

    @classmethod
    def joined(cls, packs: Sequence[PackedCells]) -> PackedCells:
        """All cells of several packs, in order."""
        counts = [np.diff(pack.offsets) for pack in packs]
        ends = np.cumsum(np.concatenate([np.zeros(1, np.int64), *counts]))
        return cls(
            np.concatenate([np.zeros((0, 3, 3)), *(pack.lattices for pack in packs)]),
            ends.astype(np.int64),
            np.concatenate([np.zeros((0, 3)), *(pack.frac_coords for pack in packs)]),
            np.concatenate([np.zeros(0, np.int16), *(pack.atomic_numbers for pack in packs)]),
        )

    def __len__(self) -> int:
        """Number of cells."""
        return len(self.lattices)

    @property
    def num_sites(self) -> Int[np.ndarray, "cells"]:
        """Number of sites of each cell."""
        return np.diff(self.offsets)

    def _fields(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        sites = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        numbers = self.atomic_numbers[sites].astype(np.int64)
        return self.lattices[index], self.frac_coords[sites], numbers

    def unit_cells(self) -> Iterator[UnitCell]:
        """The cells as unit cells."""
        return (UnitCell(*self._fields(i)) for i in range(len(self)))

    def reduced_cells(self) -> list[ReducedCell]:
        """The cells, which are reduced, in the form the matcher takes."""
        return [ReducedCell(*self._fields(i)) for i in range(len(self))]

    def take(self, indices: Int[np.ndarray, "chosen"]) -> PackedCells:
        """Some of the cells, in the order of the indices."""
        counts = self.num_sites[indices]
        ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        sites = np.arange(ends[-1]) + np.repeat(self.offsets[indices] - ends[:-1], counts)
        return PackedCells(self.lattices[indices], ends, self.frac_coords[sites], self.atomic_numbers[sites])


def reduced(cells: PackedCells) -> PackedCells:
    """Each cell as StructureMatcher reduces it; one that cannot be reduced comes back without sites."""
    return PackedCells.of([_reduced_or_empty(cell) for cell in cells.unit_cells()])


def reduced_crystals(arrays: CrystalArrays) -> PackedCells:
    """The primitive cell of each crystal, reduced."""
    return PackedCells.of(
        [_reduced_or_empty(arrays.crystal(i).unit_cell("primitive")) for i in range(len(arrays))]
    )


def _reduced_or_empty(cell: UnitCell) -> ReducedCell:
    try:
        return reduce_cell(cell)
    except MemoryError:
        raise
    except Exception:  # what generators make can defeat any library; the cell then matches nothing
        return ReducedCell(np.eye(3), np.zeros((0, 3)), np.zeros(0, dtype=np.int64))
