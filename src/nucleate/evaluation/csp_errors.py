"""How far a predicted crystal is from the test structure that it matches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nucleate.crystal import UnitCell
from nucleate.evaluation.matcher import Match
from nucleate.evaluation.reduced_cell import ReducedCell, lengths_and_angles
from nucleate.evaluation.surroundings import surroundings


@dataclass(frozen=True)
class PairErrors:
    """Mean squared errors of a prediction, in the basis and with the pairing of sites of its match.

    Attributes:
        coordinates: mean over sites of the squared displacement, Å^2.
        bonds: mean over the true crystal's bonds of the squared difference of length, Å^2; NaN without bonds.
        lengths: mean over a, b, c of the squared difference, Å^2.
        angles: mean over alpha, beta, gamma of the squared difference, degrees^2.
        volume_ratio: predicted over true volume per atom.
    """

    coordinates: float
    bonds: float
    lengths: float
    angles: float
    volume_ratio: float


def pair_errors(predicted: ReducedCell, true: ReducedCell, match: Match) -> PairErrors:
    """Errors of a prediction that matches.

    With M the basis of the match, A' = M A the predicted lattice in it, and p(i) the predicted site paired with
    the true site i:

        coordinates:  rms^2 (V_true / N)^(2/3)          rms as StructureMatcher gives it, in the mean cell
        lengths:      mean_k (|a'_k| - |a_k|)^2          at the predicted volume, not rescaled
        angles:       mean_k (alpha'_k - alpha_k)^2
        bonds:        mean over bonds (i, j, n) of ( |(f'_p(j) - f'_p(i) + n') A'| - |(f_j - f_i + n) A_true| )^2

    A bond of the true crystal is a pair in the coordination shell of its first atom (Brunner's reciprocal gap);
    n' is the lattice vector that keeps the paired sites nearest, so that a bond stays the same bond. The
    predicted crystal's mirror image counts as equal, as in StructureMatcher.
    """
    lattice = match.basis @ predicted.lattice
    lengths, angles = lengths_and_angles(lattice)
    true_lengths, true_angles = true.parameters
    sites = (predicted.frac_coords @ np.linalg.inv(match.basis.astype(float)))[match.mapping]
    offset = sites - true.frac_coords
    # The translation puts true sites on predicted ones up to lattice vectors; take those out.
    sites = sites - np.rint(offset - match.translation)
    return PairErrors(
        coordinates=match.rms**2 * (true.volume / true.num_sites) ** (2 / 3),
        bonds=_bond_error(sites, lattice, true),
        lengths=float(np.mean((lengths - true_lengths) ** 2)),
        angles=float(np.mean((angles - true_angles) ** 2)),
        volume_ratio=predicted.volume / true.volume,
    )


def _bond_error(sites: np.ndarray, lattice: np.ndarray, true: ReducedCell) -> float:
    around = surroundings(UnitCell(true.lattice, true.frac_coords, true.atomic_numbers))
    bonded = around.bonded
    if not bonded.any():
        return float("nan")
    first, second = around.first[bonded], around.second[bonded]
    between = true.frac_coords[second] - true.frac_coords[first]
    images = np.rint(around.vectors[bonded] @ np.linalg.inv(true.lattice) - between)
    predicted = np.linalg.norm((sites[second] - sites[first] + images) @ lattice, axis=1)
    return float(np.mean((predicted - around.distances[bonded]) ** 2))
