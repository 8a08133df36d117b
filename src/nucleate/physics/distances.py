"""How near two atoms of given elements come in real crystals, and which pairs of a cell are nearer than that.

The table is fitted by ``scripts/fit_min_distances.py`` on relaxed crystals. Per pair of elements, with
``d_s`` the shortest distance between them in structure s, it holds

    log t = log(margin) + w log(quantile_0.3%(d_s)) + (1 - w) f(a, b),      w = n / (n + 10)

where n counts structures and f is a fit on radii and electronegativities (the whole of t where n = 0). The
margin of 0.865 is the one that flags 0.3 % of real crystals in cross-validation over formulas.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import resources

import numpy as np

from nucleate.crystal.unit_cell import UnitCell
from nucleate.errors import InvalidStructureError
from nucleate.physics.elements import NUM_ELEMENTS, element_symbol
from nucleate.physics.neighbours import neighbours_within
from nucleate.shapes import Float, Int


@dataclass(frozen=True, eq=False)
class DistanceViolations:
    """Pairs of one cell that are nearer than any real pair of their elements, the worst ratio first.

    Each pair stands once (not in both directions); an atom and its own image is a pair with ``first ==
    second``.

    Attributes:
        first: index of one atom.
        second: index of the other, at ``frac_coords[second] + shift``.
        shifts: whole lattice vectors of the second atom.
        distances: in Å.
        minimums: smallest believable distance of the two elements, in Å.
        atomic_numbers: elements of the two atoms.
    """

    first: Int[np.ndarray, "pairs"]
    second: Int[np.ndarray, "pairs"]
    shifts: Int[np.ndarray, "pairs 3"]
    distances: Float[np.ndarray, "pairs"]
    minimums: Float[np.ndarray, "pairs"]
    atomic_numbers: Int[np.ndarray, "pairs 2"]

    def __len__(self) -> int:
        return len(self.first)

    @property
    def ok(self) -> bool:
        """Whether no pair is too near."""
        return len(self) == 0

    @property
    def reason(self) -> str:
        """The worst pair in one sentence; empty when there is none."""
        if self.ok:
            return ""
        i, j = int(self.first[0]), int(self.second[0])
        a, b = (element_symbol(int(z)) for z in self.atomic_numbers[0])
        other = "its own periodic image" if i == j else f"{b} (atom {j})"
        rest = f"; {len(self) - 1} more pairs are too near" if len(self) > 1 else ""
        return (
            f"{a} (atom {i}) is {self.distances[0]:.3f} Å from {other}, "
            f"real {a}-{b} pairs keep at least {self.minimums[0]:.3f} Å{rest}."
        )


@functools.cache
def _table() -> dict[str, np.ndarray]:
    path = resources.files("nucleate.physics").joinpath("tables", "min_distances.npz")
    with path.open("rb") as file, np.load(file) as arrays:
        upper, counts = arrays["minimum"], arrays["structures"]
    row, column = np.triu_indices(NUM_ELEMENTS)
    minimum = np.zeros((NUM_ELEMENTS + 1, NUM_ELEMENTS + 1))
    structures = np.zeros((NUM_ELEMENTS + 1, NUM_ELEMENTS + 1), dtype=np.int64)
    minimum[row + 1, column + 1] = minimum[column + 1, row + 1] = upper.astype(np.float64)
    structures[row + 1, column + 1] = structures[column + 1, row + 1] = counts
    minimum.setflags(write=False)
    structures.setflags(write=False)
    return {"minimum": minimum, "structures": structures}


def minimum_distance_matrix() -> Float[np.ndarray, "atomic_number atomic_number"]:
    """Smallest believable distances in Å by both atomic numbers; row and column 0 are 0. Read-only."""
    return _table()["minimum"]


def distance_evidence_matrix() -> Int[np.ndarray, "atomic_number atomic_number"]:
    """Structures behind each entry of :func:`minimum_distance_matrix`; 0 means radii alone."""
    return _table()["structures"]


def minimum_distance(z1: int, z2: int) -> float:
    """Smallest believable distance between two elements in Å."""
    for z in (z1, z2):
        if not 1 <= z <= NUM_ELEMENTS:
            raise InvalidStructureError(
                f"Minimum distances exist for atomic numbers 1 to {NUM_ELEMENTS}, got {z}."
            )
    return float(minimum_distance_matrix()[z1, z2])


def distance_violations(unit_cell: UnitCell, *, scale: float = 1.0) -> DistanceViolations:
    """All pairs of a cell nearer than the minimum of their elements, periodic images included.

    Args:
        unit_cell: any cell, any setting, skewed or not.
        scale: factor on the minimums; below 1 is more lenient.

    Raises:
        InvalidStructureError: elements outside 1 to 103, no volume, or a cell collapsed beyond searching.
    """
    z = np.asarray(unit_cell.atomic_numbers, dtype=np.int64)
    if z.size and (z.min() < 1 or z.max() > NUM_ELEMENTS):
        raise InvalidStructureError(
            f"Minimum distances exist for atomic numbers 1 to {NUM_ELEMENTS}, got {z.min()} to {z.max()}."
        )
    present = np.unique(z)
    radius = scale * float(minimum_distance_matrix()[np.ix_(present, present)].max()) if z.size else 1.0
    pairs = neighbours_within(unit_cell.lattice, unit_cell.frac_coords, radius=radius)
    minimums = scale * minimum_distance_matrix()[z[pairs.first], z[pairs.second]]
    # Each pair comes in both directions: keep first < second, and of an atom's images those on the positive
    # side.
    n1, n2, n3 = pairs.shifts.T
    positive = (n1 > 0) | ((n1 == 0) & ((n2 > 0) | ((n2 == 0) & (n3 > 0))))
    once = (pairs.first < pairs.second) | ((pairs.first == pairs.second) & positive)
    chosen = np.flatnonzero(once & (pairs.distances < minimums))
    chosen = chosen[np.argsort(pairs.distances[chosen] / minimums[chosen], kind="stable")]
    first, second = pairs.first[chosen], pairs.second[chosen]
    return DistanceViolations(
        first,
        second,
        pairs.shifts[chosen],
        pairs.distances[chosen],
        minimums[chosen],
        np.stack([z[first], z[second]], axis=1),
    )
