"""How long bonds are, how many an atom has and at which angles, in real crystals: histograms to judge others by.

Bonds are the coordination shells of ``Surroundings.bonded``. In each histogram every crystal has one vote per
element pair (element), shared evenly among its bonds (atoms, angles): large cells do not outvote small ones.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources

import numpy as np

from nucleate.crystal.species import element_symbol
from nucleate.crystal.unit_cell import UnitCell
from nucleate.errors import InvalidStructureError
from nucleate.evaluation.surroundings import Surroundings, surroundings
from nucleate.physics.elements import NUM_ELEMENTS, element_table, element_values
from nucleate.shapes import Float, Int

LENGTH_STEP, LENGTH_BINS = 0.02, 340
"""Bond lengths are counted in 340 bins of 0.02 Å; the last one holds everything longer than 6.78 Å."""

RATIO_STEP, RATIO_BINS = 0.005, 500
"""Bond lengths over the sum of covalent radii, for pairs that are too rare to be judged by themselves."""

ANGLE_BINS = 180
COORDINATION_BINS = 33
"""Coordination numbers 0 to 31, and 32 for more."""

MIN_VOTES = 19.99
"""Votes (20 crystals, up to rounding) below which nothing is judged by a histogram."""

_ROUNDING = 1e-4  # of a bin: 90° less a rounding error is 90°

RARE = 0.01
"""Tail probability (bond lengths, small angles) or share (coordination numbers) below which something is rare."""


@dataclass(frozen=True, eq=False)
class BondStatistics:
    """Histograms over real crystals; each entry is a sum of votes.

    Attributes:
        pairs: ``128 z_small + z_large`` of each row of ``lengths``, ascending.
        lengths: of bond lengths by element pair.
        ratios: of bond lengths over the sum of covalent radii, by kind of pair: two non-metals (metalloids
            included), one of each, two metals.
        coordination: of coordination numbers by element (row = atomic number).
        angles: of bond angles in degrees by central element (row = atomic number).
        num_crystals: crystals that were counted.
        source: what they were, in words for protocols.
    """

    pairs: Int[np.ndarray, "pairs"]
    lengths: Float[np.ndarray, "pairs length_bins"]
    ratios: Float[np.ndarray, "3 ratio_bins"]
    coordination: Float[np.ndarray, "elements numbers"]
    angles: Float[np.ndarray, "elements degrees"]
    num_crystals: int
    source: str

    def length_tails(
        self, codes: Int[np.ndarray, "entries"], bins: Int[np.ndarray, "entries"]
    ) -> Float[np.ndarray, "entries"]:
        """Two-sided tail probability of bond lengths for their elements: ``2 min(F(d), 1 - F(d))``, at most 1.

        F is the cumulative histogram of the pair, half of the bond's own bin counted, or that of d over the sum of
        covalent radii where fewer than 20 crystals have the pair. NaN where that is not known either.
        """
        tails = np.full(len(codes), np.nan)
        direct = np.zeros(len(codes), dtype=bool)
        if len(self.pairs):
            row = np.searchsorted(self.pairs, codes).clip(max=len(self.pairs) - 1)
            direct = (self.pairs[row] == codes) & (self.lengths.sum(axis=1)[row] >= MIN_VOTES)
            tails[direct] = _tails(self.lengths, row[direct], bins[direct])
        kind, ratio = _pair_kind(codes), _ratio_bin(codes, bins)
        rest = ~direct & (self.ratios.sum(axis=1)[kind] >= MIN_VOTES)
        tails[rest] = _tails(self.ratios, kind[rest], ratio[rest])
        return tails

    def coordination_shares(
        self, atomic_numbers: Int[np.ndarray, "entries"], coordination: Int[np.ndarray, "entries"]
    ) -> Float[np.ndarray, "entries"]:
        """Share of the element's atoms with this coordination number; NaN where fewer than 20 crystals have it."""
        votes = self.coordination.sum(axis=1)[atomic_numbers]
        shares = self.coordination[atomic_numbers, coordination] / np.maximum(votes, 1.0)
        return np.where(votes >= MIN_VOTES, shares, np.nan)

    def angle_tails(
        self, atomic_numbers: Int[np.ndarray, "entries"], bins: Int[np.ndarray, "entries"]
    ) -> Float[np.ndarray, "entries"]:
        """Share of angles at this element that are not larger (no angle is too wide); NaN for rare elements."""
        votes = self.angles.sum(axis=1)
        below = np.cumsum(self.angles, axis=1) / np.maximum(votes, 1.0)[:, None]
        return np.where(votes[atomic_numbers] >= MIN_VOTES, below[atomic_numbers, bins], np.nan)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The histograms as arrays that ``from_arrays`` reads."""
        return {
            "pairs": self.pairs,
            "lengths": self.lengths,
            "ratios": self.ratios,
            "coordination": self.coordination,
            "angles": self.angles,
            "num_crystals": np.array(self.num_crystals),
            "source": np.array(self.source),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> BondStatistics:
        """The statistics in arrays of ``to_arrays``."""
        tables = {
            name: np.asarray(arrays[name], dtype=np.float64)
            for name in ("lengths", "ratios", "coordination", "angles")
        }
        return cls(
            pairs=np.asarray(arrays["pairs"], dtype=np.int64),
            **tables,
            num_crystals=int(arrays["num_crystals"]),
            source=str(arrays["source"]),
        )


@functools.cache
def shipped_statistics() -> BondStatistics:
    """The statistics that come with the package: relaxed crystals of MP, JARVIS-DFT and WBM."""
    path = resources.files("nucleate.evaluation").joinpath("tables", "bonds.npz")
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return BondStatistics.from_arrays({name: arrays[name] for name in arrays.files})


def _ratio_bin(codes: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """Bin in ``BondStatistics.ratios`` of the middle of a bin of bond lengths."""
    ratio = (bins + 0.5) * LENGTH_STEP / np.maximum(_radii()[codes // 128] + _radii()[codes % 128], 1e-6)
    return np.minimum((ratio / RATIO_STEP).astype(np.int64), RATIO_BINS - 1)


def _tails(table: np.ndarray, rows: np.ndarray, bins: np.ndarray) -> np.ndarray:
    cumulative = np.cumsum(table, axis=1)
    own = table[rows, bins]
    below = cumulative[rows, bins] - own / 2
    total = cumulative[rows, -1]
    return 2 * np.minimum(below, total - below) / total


@functools.cache
def _radii() -> np.ndarray:
    return np.concatenate([[0.0], element_values("covalent_radius", np.arange(1, NUM_ELEMENTS + 1))])


@functools.cache
def _metals() -> np.ndarray:
    return np.array([False, *(letter == "m" for letter in element_table()["metallic"][:NUM_ELEMENTS])])


def _pair_kind(codes: np.ndarray) -> np.ndarray:
    return _metals()[codes // 128].astype(int) + _metals()[codes % 128]


@dataclass(frozen=True, eq=False)
class BondCounts:
    """The bonds, coordination numbers and angles of one crystal, counted by bin; atoms beyond Lr are left out.

    Attributes:
        bonds: rows of (``128 z_small + z_large``, bin of the length, directed bonds).
        coordination: rows of (atomic number, coordination number, atoms).
        angles: rows of (atomic number of the centre, angle in whole degrees, angles).
    """

    bonds: Int[np.ndarray, "bonds 3"]
    coordination: Int[np.ndarray, "numbers 3"]
    angles: Int[np.ndarray, "angles 3"]


def bond_counts(around: Surroundings) -> BondCounts:
    """The counts of one crystal."""
    z = around.atomic_numbers
    usable = around.bonded & (z[around.first] <= NUM_ELEMENTS) & (z[around.second] <= NUM_ELEMENTS)
    lengths = (around.distances[usable] / LENGTH_STEP + _ROUNDING).astype(np.int64)
    atoms = np.flatnonzero(z <= NUM_ELEMENTS)
    centre, angles = around.bond_angles()
    inside = z[centre] <= NUM_ELEMENTS
    return BondCounts(
        _counted(around.element_pairs[usable], lengths, LENGTH_BINS),
        _counted(z[atoms], around.coordination[atoms], COORDINATION_BINS),
        _counted(z[centre[inside]], (angles[inside] + _ROUNDING).astype(np.int64), ANGLE_BINS),
    )


def _counted(classes: np.ndarray, bins: np.ndarray, num_bins: int) -> np.ndarray:
    """(class, bin, count) of each occupied bin; the last bin holds everything beyond."""
    keys, counts = np.unique(classes * num_bins + np.minimum(bins, num_bins - 1), return_counts=True)
    return np.stack([keys // num_bins, keys % num_bins, counts], axis=1).astype(np.int64)


def _votes(counted: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Counts divided by the total of their class, so that each class has one vote."""
    if not len(counted):
        return np.zeros(0)
    _, inverse = np.unique(classes, return_inverse=True)
    return counted[:, 2] / np.bincount(inverse, counted[:, 2])[inverse]


@dataclass(frozen=True)
class BondJudgement:
    """How usual the bonds of a crystal are.

    Attributes:
        rare_bonds: share of its bonds whose length has a tail probability below ``RARE`` for its elements.
        smallest_tail: the smallest of these probabilities; NaN where none is known.
        rarest_bond: that bond, ``O-Ti 1.53 Å``; empty where none is known.
        rare_coordination: share of its atoms with a coordination number that fewer than ``RARE`` of the atoms of
            their element have.
        rare_angles: share of its angles smaller than all but ``RARE`` of the angles at that element.
    """

    rare_bonds: float
    smallest_tail: float
    rarest_bond: str
    rare_coordination: float
    rare_angles: float


def judge_bonds(counts: BondCounts, statistics: BondStatistics) -> BondJudgement:
    """How usual the bonds, coordination numbers and angles of a crystal are among real crystals.

    Of real crystals themselves about a hundredth is rare, by definition. What cannot be judged (elements that
    hardly occur) is left out; NaN where nothing is left.
    """
    codes, bins, _ = counts.bonds.T
    tails = statistics.length_tails(codes, bins)
    shares = statistics.coordination_shares(counts.coordination[:, 0], counts.coordination[:, 1])
    below = statistics.angle_tails(counts.angles[:, 0], counts.angles[:, 1])
    smallest, rarest = math.nan, ""
    if np.isfinite(tails).any():
        worst = int(np.nanargmin(tails))
        smallest = float(tails[worst])
        a, b = sorted(element_symbol(int(z)) for z in divmod(int(codes[worst]), 128))
        rarest = f"{a}-{b} {(bins[worst] + 0.5) * LENGTH_STEP:.2f} Å"
    return BondJudgement(
        _share(tails < RARE, tails, counts.bonds[:, 2]),
        smallest,
        rarest,
        _share(shares < RARE, shares, counts.coordination[:, 2]),
        _share(below < RARE, below, counts.angles[:, 2]),
    )


def _share(flags: np.ndarray, judged: np.ndarray, weights: np.ndarray) -> float:
    known = np.isfinite(judged)
    total = weights[known].sum()
    return float(weights[known & flags].sum() / total) if total else math.nan


class _Histograms:
    """Sums of votes while crystals are counted."""

    def __init__(self) -> None:
        self.lengths: dict[int, np.ndarray] = {}
        self.ratios = np.zeros((3, RATIO_BINS))
        self.coordination = np.zeros((NUM_ELEMENTS + 1, COORDINATION_BINS))
        self.angles = np.zeros((NUM_ELEMENTS + 1, ANGLE_BINS))
        self.num_crystals = 0

    def add(self, counts: BondCounts) -> None:
        self.num_crystals += 1
        codes, bins, _ = counts.bonds.T
        votes = _votes(counts.bonds, codes)
        for code, index, vote in zip(codes.tolist(), bins.tolist(), votes.tolist()):
            self.lengths.setdefault(code, np.zeros(LENGTH_BINS))[index] += vote
        kinds = _pair_kind(codes)
        np.add.at(self.ratios, (kinds, _ratio_bin(codes, bins)), _votes(counts.bonds, kinds))
        for table, rows in ((self.coordination, counts.coordination), (self.angles, counts.angles)):
            table[rows[:, 0], rows[:, 1]] += _votes(rows, rows[:, 0])

    def statistics(self, source: str) -> BondStatistics:
        pairs = np.array(sorted(self.lengths), dtype=np.int64)
        lengths = [self.lengths[int(code)] for code in pairs]
        return BondStatistics(
            pairs,
            np.stack(lengths) if lengths else np.zeros((0, LENGTH_BINS)),
            self.ratios,
            self.coordination,
            self.angles,
            self.num_crystals,
            source,
        )


def count_bonds(unit_cell: UnitCell) -> BondCounts | None:
    """The votes of a cell, None where its neighbours cannot be found."""
    try:
        return bond_counts(surroundings(unit_cell))
    except InvalidStructureError:
        return None


def _count_block(cells: list[UnitCell]) -> list[BondCounts | None]:
    return [count_bonds(cell) for cell in cells]


def build_statistics(
    cells: Iterable[UnitCell],
    *,
    source: str,
    map: Callable[[Callable, Iterable], Iterator] = map,
    block: int = 256,
) -> BondStatistics:
    """The statistics of a set of real crystals, streamed.

    Args:
        cells: any cells of them; a primitive one is the quickest.
        source: what they are, in words for protocols.
        map: ``Context.map`` to count on several processes.
        block: cells that are sent to a process at a time.
    """
    histograms = _Histograms()
    for counted in map(_count_block, _blocks(cells, block)):
        for counts in counted:
            if counts is not None:
                histograms.add(counts)
    return histograms.statistics(source)


def _blocks(cells: Iterable[UnitCell], size: int) -> Iterator[list[UnitCell]]:
    block: list[UnitCell] = []
    for cell in cells:
        block.append(cell)
        if len(block) == size:
            yield block
            block = []
    if block:
        yield block
