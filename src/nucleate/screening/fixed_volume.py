"""Relaxation of a crystal inside its symmetry at a volume that is held: shape of the cell and free coordinates."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nucleate.crystal.crystal import Crystal
from nucleate.energetics.potential import GPA, Evaluation, Potential, evaluate_each
from nucleate.energetics.quasi_newton import QuasiNewton
from nucleate.energetics.relaxation import LARGEST_STRAIN, LONGEST_MOVE, force_norms
from nucleate.energetics.stiffness import floor_hessian, model_hessian
from nucleate.energetics.symmetric_coordinates import SymmetricCoordinates, symmetric_forces
from nucleate.errors import PotentialError
from nucleate.shapes import Float


@dataclass(frozen=True, eq=False)
class FixedVolumePoint:
    """A crystal relaxed at one volume.

    Attributes:
        crystal: the relaxed crystal.
        energy: eV per primitive cell.
        volume: Å^3 per primitive cell.
        pressure: what holds it there, ``-tr(stress)/3``, GPa.
        converged: whether forces and shear of the cell fell below the limit.
        evaluations: of the potential.
    """

    crystal: Crystal
    energy: float
    volume: float
    pressure: float
    converged: bool
    evaluations: int


def at_volume(crystal: Crystal, ratio: float) -> Crystal:
    """The crystal with its volume changed by a factor, shape and free coordinates kept.

    The first lattice parameter is ``ln(V/N)/sqrt(3)`` and no other one changes the volume.
    """
    params = crystal.lattice_params.copy()
    params[0] += np.log(ratio) / 3**0.5
    return replace(crystal, lattice_params=params)


def relax_at_volume(
    crystal: Crystal, potential: Potential, *, fmax: float = 0.005, max_evaluations: int = 100
) -> FixedVolumePoint:
    """The crystal with the lowest energy at its volume, in its space group and Wyckoff positions.

    Variables are all lattice parameters but the first (see ``at_volume``) and the free coordinates; a crystal without
    such variables is only evaluated.

    Args:
        crystal: where to start; its volume is kept exactly.
        potential: gives the energies.
        fmax: largest force on an atom (eV/Å) and row of the traceless cell force (eV per atom) at the end.
        max_evaluations: of the potential.

    Raises:
        PotentialError: the potential failed.
    """
    coordinates = SymmetricCoordinates(crystal)
    point = coordinates.vector(crystal)
    evaluation = _evaluate(potential, crystal)
    spent = 1
    optimiser = None
    while _largest(crystal, evaluation) >= fmax and spent < max_evaluations and len(point) > 1:
        gradient = coordinates.gradient(crystal, evaluation)[1:]
        if optimiser is None:
            optimiser = QuasiNewton(
                point[1:],
                hessian=model_hessian(coordinates, crystal)[1:, 1:],
                metric=floor_hessian(coordinates, crystal)[1:, 1:],
                size=lambda at, step: _size(coordinates, point[0], at, step),
                noise=2e-5 * crystal.num_atoms_primitive,
            )
            optimiser.start(evaluation.energy, gradient)
        elif optimiser.stalled:
            break
        trial_point = np.concatenate([point[:1], optimiser.propose()])
        trial = coordinates.crystal(trial_point)
        found = _evaluate(potential, trial)
        spent += 1
        if optimiser.observe(found.energy, coordinates.gradient(trial, found)[1:]):
            crystal, evaluation = trial, found
    _, stress = symmetric_forces(crystal, evaluation)
    return FixedVolumePoint(
        crystal,
        evaluation.energy,
        crystal.volume_per_atom * crystal.num_atoms_primitive,
        float(-np.trace(stress) / 3 / GPA),
        _largest(crystal, evaluation) < fmax,
        spent,
    )


def _evaluate(potential: Potential, crystal: Crystal) -> Evaluation:
    found = evaluate_each(potential, [crystal.unit_cell("primitive")])[0]
    if found.problem:
        raise PotentialError(
            f"no energy of {crystal.formula} at {crystal.volume_per_atom:.3f} Å^3 per atom: {found.problem}"
        )
    return found


def _largest(crystal: Crystal, evaluation: Evaluation) -> float:
    """The larger of the force on an atom and the traceless part of the cell's forces."""
    _, stress = symmetric_forces(crystal, evaluation)
    return max(force_norms(crystal, evaluation, pressure=float(-np.trace(stress) / 3)))


def _size(
    coordinates: SymmetricCoordinates,
    first: float,
    point: Float[np.ndarray, "x"],
    step: Float[np.ndarray, "x"],
) -> float:
    at = coordinates.crystal(np.concatenate([[first], point]))
    moved, strain = coordinates.displacements(at, np.concatenate([[0.0], step]))
    longest = float(np.linalg.norm(moved, axis=1).max())
    return max(longest / LONGEST_MOVE, float(np.abs(np.linalg.eigvalsh(strain)).max()) / LARGEST_STRAIN)
