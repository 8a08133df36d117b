"""Crystals made up for tests: random orbits on chosen positions of any group, and copies of a unit cell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nucleate.crystal import Crystal, UnitCell, space_group
from nucleate.shapes import Float

VOLUME_PER_ATOM = 40.0


def lattice_params(number: int, rng: np.random.Generator) -> Float[np.ndarray, "k"]:
    """Random free lattice parameters of a group, 40 Å^3 per atom, axes different by up to a third."""
    k = space_group(number).lattice_subspace.num_params
    params = rng.uniform(0.06, 0.2, k) * rng.choice([-1, 1], k)
    params[0] = np.log(VOLUME_PER_ATOM) / 3**0.5
    return params


def smallest_distance(crystal: Crystal) -> float:
    """Smallest distance in Å between an orbit's representative and any atom, its own images included."""
    cell = crystal.unit_cell()
    difference = crystal.representatives[:, None] - cell.frac_coords
    difference -= np.rint(difference)
    steps = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    shortest = np.linalg.norm((difference[:, :, None] + steps) @ cell.lattice, axis=-1)
    return float(np.sort(shortest.ravel())[crystal.num_orbits])  # the first ones are each atom with itself


def crystal_on(
    number: int,
    indices: list[int],
    rng: np.random.Generator,
    *,
    atomic_numbers: list[int],
    distance: float = 0.5,
) -> Crystal:
    """A crystal with one orbit on each of these Wyckoff positions, no two atoms nearer than ``distance``."""
    group = space_group(number)
    while True:
        free = np.zeros((len(indices), 3))
        for row, index in zip(free, indices):
            position = group.wyckoff_positions[index]
            row[: position.num_free] = position.period_lattice @ rng.uniform(size=position.num_free)
        crystal = Crystal(
            number, lattice_params(number, rng), np.array(indices), np.array(atomic_numbers), free
        )
        if smallest_distance(crystal) > distance:
            return crystal


def generic_crystal(number: int, index: int, rng: np.random.Generator) -> Crystal:
    """One orbit on the position and three general orbits of other elements: the group is exactly this one."""
    general = len(space_group(number).letters) - 1
    return crystal_on(number, [index, general, general, general], rng, atomic_numbers=[22, 8, 16, 34])


def random_crystal(number: int, rng: np.random.Generator) -> Crystal:
    """Two to four orbits on random positions (at least one general), elements drawn from three."""
    group = space_group(number)
    general = len(group.letters) - 1
    while True:
        indices = [general, *rng.integers(0, general + 1, rng.integers(1, 4)).tolist()]
        fixed = [i for i in indices if group.wyckoff_positions[i].num_free == 0]
        if len(set(fixed)) == len(fixed):
            break
    elements = rng.choice([8, 14, 22], len(indices)).tolist()
    return crystal_on(number, indices, rng, atomic_numbers=elements, distance=0.3)


def random_rotation(rng: np.random.Generator) -> Float[np.ndarray, "3 3"]:
    """A proper rotation, uniformly distributed."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else -q


def supercell(cell: UnitCell, matrix: np.ndarray) -> UnitCell:
    """The cell with basis ``matrix^T A`` (integer columns), every atom repeated; right- or left-handed."""
    matrix = np.asarray(matrix)
    size = round(abs(np.linalg.det(matrix)))
    span = int(np.abs(matrix).sum(axis=1).max())
    grid = np.stack(np.meshgrid(*[np.arange(-span, span + 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    inverse = np.linalg.inv(matrix)
    inside = grid @ inverse.T
    steps = grid[((inside > -1e-9) & (inside < 1 - 1e-9)).all(axis=1)]
    assert len(steps) == size
    coords = (cell.frac_coords[:, None] + steps).reshape(-1, 3) @ inverse.T
    return UnitCell(matrix.T @ cell.lattice, coords - np.floor(coords), np.repeat(cell.atomic_numbers, size))


def disguised(cell: UnitCell, rng: np.random.Generator, *, left_handed: bool = False) -> UnitCell:
    """The same crystal in another cell: sheared supercell, moved origin, rotated frame, other order."""
    matrix = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    if cell.num_atoms <= 60:
        matrix = np.array([[1, 1, 0], [-1, 1, 0], [0, 0, 1]])[rng.permutation(3)]
    matrix = matrix @ np.array([[1, 1, 0], [0, 1, -1], [0, 0, 1]])
    if (np.linalg.det(matrix) < 0) != left_handed:
        matrix = matrix @ np.diag([1, -1, 1])
    larger = supercell(cell, matrix)
    order = rng.permutation(larger.num_atoms)
    coords = larger.frac_coords[order] + rng.uniform(size=3)
    return UnitCell(
        larger.lattice @ random_rotation(rng), coords - np.floor(coords), larger.atomic_numbers[order]
    )


def noisy(cell: UnitCell, rng: np.random.Generator, *, size: float) -> UnitCell:
    """Every atom moved by at most ``size`` Å in a random direction."""
    step = rng.normal(size=cell.frac_coords.shape)
    step *= size * rng.uniform(size=(len(step), 1)) / np.linalg.norm(step, axis=1, keepdims=True)
    return replace(cell, frac_coords=cell.frac_coords + step @ np.linalg.inv(cell.lattice))


def same_atoms(a: UnitCell, b: UnitCell, *, tolerance: float) -> bool:
    """Whether two cells in one frame hold the same atoms in the same order, modulo lattice translations."""
    if a.num_atoms != b.num_atoms or (a.atomic_numbers != b.atomic_numbers).any():
        return False
    if np.abs(a.lattice - b.lattice).max() > tolerance:
        return False
    difference = a.frac_coords - b.frac_coords
    return bool(np.abs((difference - np.rint(difference)) @ a.lattice).max() < tolerance)


def neighbours(
    cell: UnitCell, centres: Float[np.ndarray, "n 3"], *, radius: float
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each centre (fractional): vectors (Å) to all atoms within ``radius`` but itself, and their elements."""
    spacing = 1 / np.linalg.norm(np.linalg.inv(cell.lattice), axis=0)
    reach = np.ceil(radius / spacing).astype(int) + 1
    steps = np.stack(np.meshgrid(*[np.arange(-r, r + 1) for r in reach], indexing="ij"), axis=-1).reshape(
        -1, 3
    )
    found = []
    for centre in centres:
        difference = cell.frac_coords - centre
        difference -= np.floor(difference)
        vectors = (difference[:, None] + steps) @ cell.lattice
        lengths = np.linalg.norm(vectors, axis=-1)
        atom, step = np.nonzero((lengths < radius) & (lengths > 1e-3))
        found.append((vectors[atom, step], cell.atomic_numbers[atom]))
    return found


def geometry(crystal: Crystal, *, radius: float = 4.0) -> Float[np.ndarray, "pairs 3"]:
    """Every (element, neighbour's element, distance) of one primitive cell, sorted: equal for equal crystals."""
    cell = crystal.unit_cell("primitive")
    rows = []
    for z, (vectors, elements) in zip(cell.atomic_numbers, neighbours(cell, cell.frac_coords, radius=radius)):
        distances = np.linalg.norm(vectors, axis=1)
        rows.append(np.stack([np.full(len(elements), z), elements, distances], axis=1))
    table = np.concatenate(rows)
    return table[np.lexsort((table[:, 2], table[:, 1], table[:, 0]))]


def same_geometry(a: Crystal, b: Crystal) -> bool:
    """Whether two crystals have the same interatomic distances up to 4 Å (pairs at the rim left out)."""
    first, second = geometry(a), geometry(b)
    first, second = (x[x[:, 2] < 4.0 - 1e-6] for x in (first, second))
    return first.shape == second.shape and np.allclose(first, second, atol=1e-7)


def same_encoding(a: Crystal, b: Crystal, *, tolerance: float = 1e-6) -> bool:
    """Whether two crystals are equal number by number."""
    return (
        a.space_group_number == b.space_group_number
        and np.array_equal(a.wyckoff_indices, b.wyckoff_indices)
        and np.array_equal(a.atomic_numbers, b.atomic_numbers)
        and np.allclose(a.lattice_params, b.lattice_params, atol=tolerance)
        and np.allclose(a.free_coords, b.free_coords, atol=tolerance)
    )
