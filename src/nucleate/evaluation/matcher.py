"""Whether two crystals are one within tolerances, decided as pymatgen's StructureMatcher decides it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from pymatgen.core import Lattice
from pymatgen.util.coord_cython import is_coord_subset_pbc, pbc_shortest_vectors
from scipy.optimize import linear_sum_assignment

from nucleate.errors import ConfigError
from nucleate.evaluation.reduced_cell import ReducedCell, lengths_and_angles
from nucleate.shapes import Float, Int

_SAME = 1e-5  # below this rms displacement StructureMatcher looks no further
_HALF = 0.5 + 1e-6  # hexagonal and centred cells have coefficients of a half, give or take rounding
_SAME_HAND = 1e-3  # difference of rms displacements that is rounding and idealisation, not handedness


@dataclass(frozen=True, eq=False)
class Match:
    """How the sites of one crystal lie on those of another.

    Attributes:
        rms: root mean square displacement, in units of (V/N)^(1/3) of the mean cell.
        max_distance: largest displacement, in the same unit.
        basis: integer rows; ``basis @ lattice`` of the first (rescaled) crystal lies on the second's lattice.
        translation: fractional, of the second crystal's coordinates.
        mapping: site of the first crystal for each site of the second.
        is_proper: whether the basis has the handedness of the second's lattice; if not, the mirror image of the
            first crystal was compared.
    """

    rms: float
    max_distance: float
    basis: Int[np.ndarray, "3 3"]
    translation: Float[np.ndarray, "3"]
    mapping: Int[np.ndarray, "sites"]
    is_proper: bool


@dataclass(frozen=True)
class Matcher:
    """StructureMatcher's criterion on reduced cells (primitive, scaled to equal volume, elements as species).

    For crystals 1 and 2 of the same elements and number N of sites:

    1. both are scaled to the volume ``sqrt(V1 V2)``;
    2. every basis of lattice 1 is tried whose three lengths are within a factor ``1 + ltol`` and whose angles
       within ``angle_tol`` of those of lattice 2;
    3. in each, the rarest element's first site of crystal 2 is put on each such site of crystal 1, and every
       site of 2 must have an equal site of 1 within ``2 stol |a*| (V/N)^(1/3)`` along each axis;
    4. sites are then paired (linear sum assignment of squared distances, in the cell whose lengths and angles
       are the means of the two), the mean displacement is taken out, and with ``d_i`` what is left over

           fits  <=>  max_i d_i < stol (V/N)^(1/3)
           rms   =    sqrt(mean_i d_i^2) / (V/N)^(1/3),   the smallest over all bases and translations, if < stol.

    These are the steps of pymatgen's ``StructureMatcher.fit`` and ``.get_rms_dist`` with the same compiled
    routines for 3 and 4; bases and mean cells are computed for all candidates at once. Neither relation is
    symmetric (lattice 1 is tried against a fixed basis of 2) or transitive, and since bases of either
    handedness are tried, a crystal matches its mirror image.

    Attributes:
        ltol: largest relative difference of lengths.
        stol: largest displacement, in units of (V/N)^(1/3).
        angle_tol: largest difference of angles in degrees.

    Source: S. P. Ong et al., Comput. Mater. Sci. 68 (2013) 314 (pymatgen).
    """

    ltol: float = 0.2
    stol: float = 0.3
    angle_tol: float = 5.0

    def __post_init__(self) -> None:
        for name in ("ltol", "stol", "angle_tol"):
            if not getattr(self, name) > 0:
                raise ConfigError(
                    f"{name} of the structure matcher must be positive, got {getattr(self, name)}"
                )

    def fits(self, first: ReducedCell, second: ReducedCell) -> bool:
        """Whether the two match, ``StructureMatcher.fit``."""
        return any(match.max_distance < self.stol for match in self._matches(first, second))

    def best_match(self, first: ReducedCell, second: ReducedCell) -> Match | None:
        """The match with the smallest rms displacement, ``StructureMatcher.get_rms_dist``; None where none is."""
        best: Match | None = None
        for match in self._matches(first, second):
            if best is None or match.rms < best.rms:
                best = match
                if best.rms < min(_SAME, self.stol):
                    break
        return best if best is not None and best.rms < self.stol else None

    def is_mirror_image(self, first: ReducedCell, second: ReducedCell) -> bool:
        """Whether the mirror image of the first crystal lies better on the second than the first itself does.

        Compares the smallest rms displacement over bases of either handedness; equal ones (within 0.001, as
        for every crystal that has a mirror image of its own) count as the same hand.
        """
        best = {True: np.inf, False: np.inf}
        for match in self._matches(first, second):
            best[match.is_proper] = min(best[match.is_proper], match.rms)
        return best[False] < min(best[True] - _SAME_HAND, self.stol)

    def _matches(self, first: ReducedCell, second: ReducedCell) -> Iterator[Match]:
        """Pairings of sites in each basis and for each translation that passes the coarse test."""
        n = second.num_sites
        if not n or first.sorted_numbers != second.sorted_numbers:
            return
        scale = (second.volume / first.volume) ** (1 / 6)
        lengths, angles = second.parameters
        lengths = lengths / scale
        bases, lattices = self._bases(first.lattice * scale, lengths, angles)
        if not len(bases):
            return

        mask = (second.atomic_numbers[:, None] != first.atomic_numbers[None, :]).astype(np.int64)
        anchor = int(mask.sum(axis=1).argmax())
        on = np.flatnonzero(mask[anchor] == 0)

        proper = (np.linalg.det(lattices) > 0) == (np.linalg.det(second.lattice) > 0)
        mean = _MeanCells(lattices, lengths, angles)
        per_site = (mean.volumes / n) ** (1 / 3)
        tolerances = 2 * self.stol * mean.reciprocal * per_site[:, None]
        coords = first.frac_coords @ np.linalg.inv(bases.astype(float))
        coords = coords - np.floor(coords)
        shifts = coords[:, on] - second.frac_coords[anchor]

        for k in range(len(bases)):
            mine, tolerance, cell = coords[k], tolerances[k], None
            for shift in shifts[k]:
                theirs = second.frac_coords + shift
                if not is_coord_subset_pbc(theirs, mine, tolerance, mask):
                    continue
                if cell is None:
                    cell = mean.cell(k)
                    skip = 2 * self.stol * per_site[k] * cell.reciprocal
                vectors, squared = pbc_shortest_vectors(cell, theirs, mine, mask, True, skip)
                _, mapping = linear_sum_assignment(squared)
                chosen = vectors[np.arange(n), mapping]
                drift = chosen.mean(axis=0)
                left = chosen - drift
                squares = np.einsum("si,si->s", left, left) / per_site[k] ** 2
                yield Match(
                    rms=float(squares.mean()) ** 0.5,
                    max_distance=float(squares.max()) ** 0.5,
                    basis=bases[k],
                    translation=shift + drift @ np.linalg.inv(mean.lattices[k]),
                    mapping=mapping,
                    is_proper=bool(proper[k]),
                )

    def _bases(
        self, lattice: Float[np.ndarray, "3 3"], lengths: np.ndarray, angles: np.ndarray
    ) -> tuple[Int[np.ndarray, "bases 3 3"], Float[np.ndarray, "bases 3 3"]]:
        """Bases of a lattice with about these lengths and angles: integer rows, and their vectors."""
        radius = float(lengths.max()) * (1 + self.ltol)
        reach = np.floor(radius * np.linalg.norm(np.linalg.inv(lattice), axis=0) + 1e-6).astype(int)
        grid = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"), axis=-1)
        points = grid.reshape(-1, 3)
        vectors = points @ lattice
        norms = np.sqrt(np.einsum("pi,pi->p", vectors, vectors))
        ratios = norms[:, None] / lengths
        near = (ratios < 1 + self.ltol) & (ratios > 1 / (1 + self.ltol))
        a, b, c = (np.flatnonzero(near[:, axis]) for axis in range(3))

        def close(i: np.ndarray, j: np.ndarray, angle: float) -> np.ndarray:
            cosines = vectors[i] @ vectors[j].T / (norms[i][:, None] * norms[j])
            return np.abs(np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0))) - angle) <= self.angle_tol

        both = close(a, b, angles[2])[:, :, None] & close(a, c, angles[1])[:, None, :]
        i, j, k = np.nonzero(both & close(b, c, angles[0])[None, :, :])
        chosen = np.stack([a[i], b[j], c[k]], axis=-1)
        bases = points[chosen]
        volume = np.einsum("bi,bi->b", bases[:, 0], np.cross(bases[:, 1], bases[:, 2]))
        primitive = np.abs(volume) == 1
        return bases[primitive], vectors[chosen[primitive]]


class _MeanCells:
    """Cells whose lengths and angles are the means of those of many lattices and of one.

    The angles of real cells fill a convex region (each smaller than the sum of the others, sum below 360
    degrees), so that means of real cells are real.
    """

    def __init__(self, lattices: np.ndarray, lengths: np.ndarray, angles: np.ndarray) -> None:
        own_lengths, own_angles = lengths_and_angles(lattices)
        a = (own_lengths + lengths) / 2
        cosines = np.cos(np.radians((own_angles + angles) / 2))
        metric = np.ones((len(a), 3, 3))
        for (i, j), cosine in zip(((1, 2), (0, 2), (0, 1)), cosines.T):
            metric[:, i, j] = metric[:, j, i] = cosine
        self.lattices = np.linalg.cholesky(metric) * a[:, :, None]
        self.volumes = np.prod(np.diagonal(self.lattices, axis1=1, axis2=2), axis=1)
        self.reciprocal = np.linalg.norm(np.linalg.inv(self.lattices), axis=1)

    def cell(self, index: int) -> _ReducedMeanCell:
        """One of them in the form pymatgen's distances need."""
        lattice = self.lattices[index]
        (a, _, _), (ba, b, _), (ca, cb, c) = lattice.tolist()
        # Rows of a Cholesky factor are the Gram-Schmidt coefficients: a look tells whether LLL leaves it alone.
        sizes = abs(ba) <= _HALF * a and abs(ca) <= _HALF * a and abs(cb) <= _HALF * b
        if sizes and b * b >= 0.75 * a * a - ba * ba and c * c >= 0.75 * b * b - cb * cb:
            return _ReducedMeanCell(lattice, None, self.reciprocal[index])
        found = Lattice(lattice)
        reciprocal = np.linalg.norm(np.linalg.inv(found.lll_matrix), axis=0)
        return _ReducedMeanCell(found.lll_matrix, found.lll_inverse, reciprocal)


@dataclass(frozen=True, eq=False)
class _ReducedMeanCell:
    """What ``pbc_shortest_vectors`` asks of a lattice: its LLL-reduced basis and coordinates in it."""

    lll_matrix: np.ndarray
    to_reduced: np.ndarray | None
    reciprocal: np.ndarray
    pbc = (True, True, True)

    def get_lll_frac_coords(self, frac_coords: np.ndarray) -> np.ndarray:
        """Fractional coordinates in the reduced basis."""
        return frac_coords if self.to_reduced is None else frac_coords @ self.to_reduced
