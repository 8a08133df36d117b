"""Whether a cell can hold atoms: the published rule, distances by element pair, density, volume and cell shape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nucleate.crystal.elements import mass_density
from nucleate.crystal.species import element_symbol
from nucleate.crystal.unit_cell import UnitCell
from nucleate.evaluation.surroundings import Surroundings
from nucleate.physics.density import DensityCheck, check_density
from nucleate.physics.distances import minimum_distance_matrix
from nucleate.physics.elements import NUM_ELEMENTS
from nucleate.physics.volume import volume_per_atom
from nucleate.shapes import Float

MIN_LATTICE_VECTOR = 2.0
"""Shortest lattice vector (Å) of a believable crystal: atoms repeat along it, and nothing but hydrogen under
pressure repeats nearer."""

MAX_ELONGATION = 15.0
"""Largest ratio of the longest to the shortest vector of the reduced cell."""

MAX_VOLUME_SPREADS = 6.0
"""Standard deviations of log(volume per atom) beyond which a volume is called strange."""


VOLUME_NOISE = 0.03
"""Standard deviation of ln(volume) between functionals, temperatures and experiment, added to that of the estimate:
PBE's silver and gold are 6 % larger than nature's."""


@dataclass(frozen=True)
class NearestPair:
    """The pair of atoms that decides a check.

    Attributes:
        distance: Å; infinite where there is no pair.
        least: shortest distance that real crystals have between these elements, Å; 0 beyond Lr.
        ratio: ``distance`` over ``least``.
        elements: ``Ti-O``; empty where there is no pair.
        own_image: whether it is an atom and its own periodic image.
    """

    distance: float
    least: float
    ratio: float
    elements: str
    own_image: bool


@dataclass(frozen=True)
class CellShape:
    """The Minkowski-reduced cell of a lattice: its three shortest independent vectors.

    Attributes:
        shortest: Å.
        longest: Å.
        smallest_angle: degrees, 60 to 90.
        largest_angle: degrees, 90 to 120.
    """

    shortest: float
    longest: float
    smallest_angle: float
    largest_angle: float

    @property
    def elongation(self) -> float:
        """Longest over shortest vector."""
        return self.longest / self.shortest

    @property
    def reason(self) -> str:
        """Why the shape is not believable; empty when it is."""
        if self.shortest < MIN_LATTICE_VECTOR:
            return f"the crystal repeats after {self.shortest:.3g} Å, real ones not below {MIN_LATTICE_VECTOR:g} Å"
        if self.elongation > MAX_ELONGATION:
            return f"the reduced cell is {self.elongation:.3g} times as long as wide, more than {MAX_ELONGATION:g}"
        return ""


def nearest_pair(around: Surroundings, *, by_ratio: bool = False, own_images: bool = True) -> NearestPair:
    """The pair at the shortest distance, or with the smallest ratio to the least distance of its elements.

    Args:
        around: the pairs of the crystal.
        by_ratio: by ratio instead of distance.
        own_images: whether an atom and its own image are a pair. They are atoms like any others, but the published
            rule does not look at them.
    """
    z = around.atomic_numbers
    known = np.where(z <= NUM_ELEMENTS, z, 0)  # no least distance is known beyond Lr: row 0 of the table is 0
    minimum = minimum_distance_matrix()[known[around.first], known[around.second]]
    with np.errstate(divide="ignore"):
        ratios = around.distances / minimum
    key = ratios if by_ratio else around.distances
    if not own_images:
        key = np.where(around.first == around.second, np.inf, key)
    if not len(key) or not np.isfinite(key.min()):
        return NearestPair(math.inf, 0.0, math.inf, "", False)
    worst = int(key.argmin())
    a, b = int(around.first[worst]), int(around.second[worst])
    symbols = sorted(element_symbol(int(z[i])) for i in (a, b))
    return NearestPair(
        float(around.distances[worst]),
        float(minimum[worst]),
        float(ratios[worst]),
        "-".join(symbols),
        a == b,
    )


def is_structurally_valid(
    unit_cell: UnitCell, around: Surroundings, *, min_distance: float = 0.5, min_volume: float = 0.1
) -> bool:
    """The structural validity of CDVAE, DiffCSP, FlowMM and their successors.

        min over sites i != j and lattice vectors n of |r_i - r_j + n|  >=  0.5 Å   and   V >= 0.1 Å^3

    An atom and its own images are not compared (the published code pads the diagonal of the distance matrix), so
    a cell of one atom is valid whatever its size. ``nearest_pair`` looks at them too.

    Source: T. Xie et al., ICLR 2022; ``structure_validity`` of its code.
    """
    nearest = nearest_pair(around, own_images=False)
    # Pairs of different sites may all lie beyond the radius of the search; then they are further than 0.5 Å unless
    # the whole search was shorter.
    if math.isinf(nearest.distance) and around.radius < min_distance:
        return unit_cell.num_atoms == 1 and unit_cell.volume >= min_volume
    return nearest.distance >= min_distance and unit_cell.volume >= min_volume


def cell_shape(lattice: Float[np.ndarray, "3 3"]) -> CellShape:
    """Lengths and angles of the Minkowski-reduced cell.

    Source: P. Q. Nguyen and D. Stehlé, ACM Trans. Algorithms 5 (2009) 46, as in ASE.
    """
    from ase.geometry.minkowski_reduction import minkowski_reduce  # noqa: PLC0415  ASE loads when it is needed

    reduced, _ = minkowski_reduce(lattice)
    lengths = np.linalg.norm(reduced, axis=1)
    cosines = (reduced @ reduced.T) / np.outer(lengths, lengths)
    angles = np.degrees(np.arccos(np.clip(cosines[[0, 0, 1], [1, 2, 2]], -1.0, 1.0)))
    return CellShape(
        float(lengths.min()),
        float(lengths.max()),
        float(min(angles.min(), 90.0)),
        float(max(angles.max(), 90.0)),
    )


def density_check(counts: Mapping[int, int], volume: float) -> DensityCheck:
    """The mass density held against 0.5 to 25 g/cm³; any element with a mass.

    Args:
        counts: atoms of the cell, by atomic number.
        volume: of the cell, Å³.
    """
    return check_density(mass_density(dict(counts), volume))


def expected_volume(counts: Mapping[int, int]) -> tuple[float, float] | None:
    """(volume per atom in Å³ that a composition lets expect, standard deviation of its logarithm); None beyond Lr.

    The estimate is for PBE at zero temperature; ``VOLUME_NOISE`` is added to its spread in quadrature.
    """
    if max(counts) > NUM_ELEMENTS:
        return None
    expected = volume_per_atom({element_symbol(z): n for z, n in counts.items()})
    return expected.mean, math.hypot(expected.log_std, VOLUME_NOISE)


def volume_spreads(counts: Mapping[int, int], volume: float) -> float:
    """How far the volume is from what the composition lets expect, in standard deviations of its logarithm.

        (ln(V / N) - ln v) / s,    v and s from ``expected_volume``

    Positive for a crystal that is too dilute. NaN with elements beyond Lr.

    Args:
        counts: atoms of the cell, by atomic number.
        volume: of the cell, Å³.
    """
    expected = expected_volume(counts)
    if expected is None:
        return math.nan
    return (math.log(volume / sum(counts.values())) - math.log(expected[0])) / expected[1]
