"""Many crystals as ragged numpy arrays: what a training batch is built from, without a loop over crystals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from nucleate.crystal import Crystal
from nucleate.shapes import Float, Int


@dataclass(frozen=True, eq=False)
class CrystalArrays:
    """Crystals side by side; orbit ``k`` of crystal ``i`` is at ``orbit_offsets[i] + k``.

    Attributes:
        space_group_number: number of each crystal's group.
        lattice_params: free lattice parameters of all crystals, end to end.
        lattice_offsets: crystal ``i`` owns ``lattice_params[lattice_offsets[i]:lattice_offsets[i + 1]]``.
        wyckoff_indices: Wyckoff position of each orbit, 0 for letter a.
        atomic_numbers: element of each orbit.
        free_coords: free coordinates of each orbit, columns beyond the position's own are 0.
        orbit_offsets: crystal ``i`` owns orbits ``orbit_offsets[i]`` to ``orbit_offsets[i + 1]``.
        num_atoms_primitive: atoms in each primitive cell.
        rows: index of each crystal in the store.
        properties: value of each asked-for property, NaN where the store has none.
    """

    space_group_number: Int[np.ndarray, "crystals"]
    lattice_params: Float[np.ndarray, "params"]
    lattice_offsets: Int[np.ndarray, "ends"]
    wyckoff_indices: Int[np.ndarray, "orbits"]
    atomic_numbers: Int[np.ndarray, "orbits"]
    free_coords: Float[np.ndarray, "orbits 3"]
    orbit_offsets: Int[np.ndarray, "ends"]
    num_atoms_primitive: Int[np.ndarray, "crystals"]
    rows: Int[np.ndarray, "crystals"]
    properties: Mapping[str, Float[np.ndarray, "crystals"]] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of crystals."""
        return len(self.space_group_number)

    @property
    def num_orbits(self) -> Int[np.ndarray, "crystals"]:
        """Number of orbits of each crystal."""
        return np.diff(self.orbit_offsets)

    def padded_lattice_params(self) -> Float[np.ndarray, "crystals 6"]:
        """Lattice parameters of each crystal in a row of six, zero behind those its group has."""
        counts = np.diff(self.lattice_offsets)
        padded = np.zeros((len(self), 6))
        padded[np.arange(6) < counts[:, None]] = self.lattice_params
        return padded

    def batch_fields(self) -> dict[str, np.ndarray]:
        """Keyword arguments of ``CrystalBatch.from_arrays``: a training batch without a loop over crystals."""
        return {
            "space_group_number": self.space_group_number,
            "lattice_params": self.padded_lattice_params(),
            "num_orbits": self.num_orbits,
            "wyckoff_indices": self.wyckoff_indices,
            "atomic_numbers": self.atomic_numbers,
            "free_coords": self.free_coords,
        }

    def crystal(self, index: int) -> Crystal:
        """One of the crystals."""
        orbits = slice(int(self.orbit_offsets[index]), int(self.orbit_offsets[index + 1]))
        params = slice(int(self.lattice_offsets[index]), int(self.lattice_offsets[index + 1]))
        return Crystal(
            space_group_number=int(self.space_group_number[index]),
            lattice_params=self.lattice_params[params].copy(),
            wyckoff_indices=self.wyckoff_indices[orbits].copy(),
            atomic_numbers=self.atomic_numbers[orbits].copy(),
            free_coords=self.free_coords[orbits].copy(),
        )


def arrays_from_table(
    table: pa.Table,
    rows: Int[np.ndarray, "crystals"],
    properties: Mapping[str, Float[np.ndarray, "crystals"]],
) -> CrystalArrays:
    """Ragged arrays of a table with the columns ``CRYSTAL_COLUMNS``; ``rows`` are indices in the store."""
    wyckoff_indices, orbit_offsets = _ragged(table, "wyckoff_indices")
    atomic_numbers, _ = _ragged(table, "atomic_numbers")
    free_coords, _ = _ragged(table, "free_coords")
    lattice_params, lattice_offsets = _ragged(table, "lattice_params")
    # Copies: Arrow's memory is read-only, and a small result should not keep a whole row group alive.
    return CrystalArrays(
        space_group_number=table.column("space_group_number").to_numpy().astype(np.int64),
        lattice_params=lattice_params.copy(),
        lattice_offsets=lattice_offsets,
        wyckoff_indices=wyckoff_indices.astype(np.int64),
        atomic_numbers=atomic_numbers.astype(np.int64),
        free_coords=free_coords.reshape(-1, 3).copy(),
        orbit_offsets=orbit_offsets,
        num_atoms_primitive=table.column("num_atoms_primitive").to_numpy().astype(np.int64),
        rows=rows,
        properties=properties,
    )


def _ragged(table: pa.Table, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Values end to end and offsets (rows + 1) of a list column."""
    column = table.column(name).combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # an empty table has no chunk to combine
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    offsets = column.offsets.to_numpy().astype(np.int64)
    values = column.values.to_numpy(zero_copy_only=False)[offsets[0] : offsets[-1]]
    return values, offsets - offsets[0]
