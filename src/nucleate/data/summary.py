"""What a store holds, in numbers: one pass over a few columns, whatever its size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from nucleate.data.store import Store
from nucleate.shapes import Float, Int

_COLUMNS = (
    "space_group_number",
    "atomic_numbers",
    "num_atoms_primitive",
    "density",
    "handedness",
    "prototype_key",
)
_HIGHEST_ATOMIC_NUMBER = 118
_DENSITY_EDGES = np.linspace(0.0, 25.0, 101)


@dataclass(frozen=True, eq=False)
class StoreSummary:
    """Counts over the records of a store or of a selection.

    Attributes:
        num_records: records.
        space_groups: records in each space group, index 0 is group 1.
        elements: records that hold each element, index 0 is hydrogen.
        num_orbits: records with each number of orbits, index 0 for none.
        num_atoms: records with each number of atoms in the primitive cell, index 0 for none.
        num_elements: records with each number of elements, index 0 for none.
        density_edges: edges of the bins of the densities, g/cm³.
        densities: records in each bin; the last also takes what is denser.
        mean_density: mean density, g/cm³.
        num_chiral: records of one handedness, whose mirror image is another crystal.
        num_prototypes: different prototype keys.
    """

    num_records: int
    space_groups: Int[np.ndarray, "groups"]
    elements: Int[np.ndarray, "elements"]
    num_orbits: Int[np.ndarray, "orbits"]
    num_atoms: Int[np.ndarray, "atoms"]
    num_elements: Int[np.ndarray, "numbers"]
    density_edges: Float[np.ndarray, "edges"]
    densities: Int[np.ndarray, "bins"]
    mean_density: float
    num_chiral: int
    num_prototypes: int


def summarise(store: Store) -> StoreSummary:
    """Counts over the records of ``store``, streamed."""
    groups = np.zeros(230, dtype=np.int64)
    elements = np.zeros(_HIGHEST_ATOMIC_NUMBER, dtype=np.int64)
    orbits, atoms, kinds = (np.zeros(1, dtype=np.int64) for _ in range(3))
    densities = np.zeros(len(_DENSITY_EDGES) - 1, dtype=np.int64)
    total_density, num_chiral = 0.0, 0
    prototypes: set[int] = set()
    for batch in store.iter_batches(_COLUMNS, 4096):
        groups += np.bincount(batch.column("space_group_number").to_numpy() - 1, minlength=230)
        present, num_orbits = _elements(batch)
        elements += present.sum(axis=0)
        orbits = _add(orbits, np.bincount(num_orbits))
        atoms = _add(atoms, np.bincount(batch.column("num_atoms_primitive").to_numpy()))
        kinds = _add(kinds, np.bincount(present.sum(axis=1)))
        density = batch.column("density").to_numpy()
        densities += np.histogram(np.clip(density, 0.0, _DENSITY_EDGES[-1]), bins=_DENSITY_EDGES)[0]
        total_density += float(density.sum())
        num_chiral += int((batch.column("handedness").to_numpy() != 0).sum())
        prototypes.update(hash(key) for key in batch.column("prototype_key").to_pylist())
    return StoreSummary(
        num_records=len(store),
        space_groups=groups,
        elements=elements,
        num_orbits=orbits,
        num_atoms=atoms,
        num_elements=kinds,
        density_edges=_DENSITY_EDGES,
        densities=densities,
        mean_density=total_density / max(1, len(store)),
        num_chiral=num_chiral,
        num_prototypes=len(prototypes),
    )


def _elements(batch: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Which elements each record holds (records, 118), and how many orbits it has."""
    column = batch.column("atomic_numbers").combine_chunks()
    column = column if isinstance(column, pa.ListArray) else column.chunk(0)
    offsets = column.offsets.to_numpy()
    numbers = column.values.to_numpy()[offsets[0] : offsets[-1]].astype(np.int64)
    num_orbits = np.diff(offsets)
    present = np.zeros((len(num_orbits), _HIGHEST_ATOMIC_NUMBER), dtype=bool)
    present[np.repeat(np.arange(len(num_orbits)), num_orbits), numbers - 1] = True
    return present, num_orbits


def _add(total: np.ndarray, counts: np.ndarray) -> np.ndarray:
    longer = np.zeros(max(len(total), len(counts)), dtype=np.int64)
    longer[: len(total)] += total
    longer[: len(counts)] += counts
    return longer
