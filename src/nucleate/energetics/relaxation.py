"""Relaxation of one crystal inside its symmetry: what is asked for, what came out, and the state in between."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.species import element_symbol
from nucleate.energetics.potential import GPA, Evaluation
from nucleate.energetics.quasi_newton import QuasiNewton
from nucleate.energetics.stiffness import floor_hessian, model_hessian
from nucleate.energetics.symmetric_coordinates import SymmetricCoordinates, symmetric_forces
from nucleate.errors import ConfigError, InvalidStructureError, SymmetryError, WyckoffError
from nucleate.physics.distances import minimum_distance_matrix
from nucleate.physics.elements import NUM_ELEMENTS
from nucleate.physics.neighbours import neighbours_within
from nucleate.shapes import Float

ALGORITHM = "symmetric-bfgs-1"
"""Part of every cache key: what this version of the algorithm finds is not mixed with another's."""

LONGEST_MOVE = 0.3
"""Largest displacement (Å) of an atom in one step of a fresh model."""

LARGEST_STRAIN = 0.1
"""Largest principal strain in one step of a fresh model."""

COLLISION = 0.45
"""No step takes atoms nearer than this multiple of the least distance real crystals have between their elements, unless
they were as near before."""

OVERLAP = 0.2
"""A crystal with atoms nearer than this multiple of it is not begun: most potentials know nothing about that."""

VOLUME_RANGE = (0.25, 5.0)
"""A crystal whose volume leaves this range, relative to its first, has exploded or collapsed."""

_SHORTENINGS = 6


@dataclass(frozen=True)
class RelaxationSettings:
    """What a relaxation is asked for.

    Attributes:
        fmax: largest force on an atom (eV/Å) and largest row of the cell's forces (eV per atom) at convergence, the
            criterion of ASE's ``FrechetCellFilter`` with its default scale.
        max_evaluations: most evaluations of the potential for one crystal.
        relax_cell: whether lattice parameters move too.
        pressure: external pressure, GPa; minimised is ``E + P V``.
        symprec: tolerance (Å) of the symmetry search in the result.
    """

    fmax: float = 0.03
    max_evaluations: int = 300
    relax_cell: bool = True
    pressure: float = 0.0
    symprec: float = 0.01

    def __post_init__(self) -> None:
        if not (self.fmax > 0 and math.isfinite(self.fmax)):
            raise ConfigError(f"fmax must be a positive force in eV/Å, got {self.fmax}")
        if self.max_evaluations < 1:
            raise ConfigError(f"a relaxation needs at least one evaluation, got {self.max_evaluations}")
        if not math.isfinite(self.pressure):
            raise ConfigError(f"the pressure must be a number in GPa, got {self.pressure}")


@dataclass(frozen=True, eq=False)
class Relaxation:
    """What came of relaxing one crystal. Its space group and Wyckoff positions are those it had.

    Attributes:
        crystal: the relaxed crystal; of a relaxation that failed, the best point it reached.
        energy: potential energy without ``P V``, eV per primitive cell; NaN where none could be computed.
        converged: whether ``fmax`` was reached.
        reason: ``converged``, or why not, in words.
        steps: steps that were kept.
        evaluations: evaluations of the potential.
        max_force: largest force on an atom, averaged over the symmetry, eV/Å.
        max_cell_force: largest row norm of ``V (stress + P) / N``, eV per atom; 0 where the cell is held.
        initial_energy: potential energy of the given crystal, eV per primitive cell.
        initial_max_force: the larger of both forces at the start.
        volume_change: final over initial volume.
        space_group_found: group moyopy finds in the relaxed crystal; higher than its own where free coordinates or
            the cell came to a more symmetric place; None where there is no relaxed crystal or the search failed.
    """

    crystal: Crystal
    energy: float
    converged: bool
    reason: str
    steps: int
    evaluations: int
    max_force: float
    max_cell_force: float
    initial_energy: float
    initial_max_force: float
    volume_change: float
    space_group_found: int | None

    @property
    def energy_per_atom(self) -> float:
        """eV per atom."""
        return self.energy / self.crystal.num_atoms_primitive

    @property
    def initial_energy_per_atom(self) -> float:
        """eV per atom before relaxation."""
        return self.initial_energy / self.crystal.num_atoms_primitive

    @property
    def has_higher_symmetry(self) -> bool:
        """Whether the relaxed crystal has another, that is a higher, space group than the one it was relaxed in."""
        return self.space_group_found not in (None, self.crystal.space_group_number)


class RelaxationPath:
    """A relaxation under way: ``pending`` wants an evaluation, ``observe`` takes it, until ``result`` is there.

    Args:
        crystal: where to start.
        settings: what is asked for.

    Attributes:
        pending: crystal whose primitive cell is to be evaluated next; None when the relaxation has ended.
        evaluations: how many there were.
    """

    def __init__(self, crystal: Crystal, settings: RelaxationSettings) -> None:
        self.pending: Crystal | None = crystal
        self.evaluations = 0
        self._settings = settings
        self._pressure = settings.pressure * GPA
        self._coordinates = SymmetricCoordinates(crystal, relax_cell=settings.relax_cell)
        self._start = self._best = crystal
        self._optimiser: QuasiNewton | None = None
        self._energy = self._initial_energy = math.nan
        self._forces = self._initial_forces = (math.nan, math.nan)
        self._shortenings = 0
        self._nearest = self._trial_nearest = 1.0
        self._reason = ""
        try:
            crystal.check_orbits()
        except WyckoffError as error:
            self._end(f"an orbit has collapsed: {error}")
            return
        contact = closest_contact(crystal)
        self._nearest = self._trial_nearest = contact.ratio
        if contact.ratio < OVERLAP:
            self._end(f"atoms collide: {contact.text}")

    @property
    def finished(self) -> bool:
        """Whether the relaxation has ended, one way or another."""
        return self.pending is None

    def observe(self, evaluation: Evaluation) -> None:
        """Take the evaluation of the pending crystal's primitive cell and choose what to evaluate next."""
        crystal = self.pending
        assert crystal is not None
        self.evaluations += 1
        if evaluation.problem:
            self._retreat(f"the potential failed: {evaluation.problem}")
            return
        forces = force_norms(
            crystal, evaluation, pressure=self._pressure, relax_cell=self._settings.relax_cell
        )
        gradient = self._coordinates.gradient(crystal, evaluation, pressure=self._pressure)
        volume = crystal.volume_per_atom * crystal.num_atoms_primitive
        enthalpy = evaluation.energy + self._pressure * volume
        kept = True
        if self._optimiser is None:
            self._initial_energy, self._initial_forces = evaluation.energy, forces
            if max(forces) >= self._settings.fmax and not self._begin(crystal, enthalpy, gradient):
                return
        else:
            kept = self._optimiser.observe(enthalpy, gradient)
        if kept or max(forces) < self._settings.fmax:
            self._nearest = self._trial_nearest
            self._best, self._energy, self._forces = crystal, evaluation.energy, forces
        if max(forces) < self._settings.fmax:
            self._end("converged")
        elif self.evaluations >= self._settings.max_evaluations:
            self._end(
                f"not converged after {self.evaluations} evaluations: {max(self._forces):.3g} is left, "
                f"{self._settings.fmax:g} was asked"
            )
        elif self._optimiser is None or self._optimiser.stalled:
            self._end(
                f"stalled at a force of {max(self._forces):.3g}: no step lowers the energy further, "
                "which is the noise of the potential or a kink in it"
            )
        else:
            self._shortenings = 0
            self._advance(self._optimiser.propose())

    def result(self) -> Relaxation:
        """What came of it, once it has ended."""
        assert self.finished
        failed = math.isnan(self._energy)
        return Relaxation(
            crystal=self._best,
            energy=self._energy,
            converged=self._reason == "converged",
            reason=self._reason,
            steps=0 if self._optimiser is None else self._optimiser.accepted_steps,
            evaluations=self.evaluations,
            max_force=self._forces[0],
            max_cell_force=self._forces[1],
            initial_energy=self._initial_energy,
            initial_max_force=max(self._initial_forces),
            volume_change=self._best.volume_per_atom / self._start.volume_per_atom,
            space_group_found=None if failed else _found_group(self._best, self._settings.symprec),
        )

    def abort(self, reason: str) -> None:
        """End the relaxation from outside."""
        self._end(reason)

    def _begin(self, crystal: Crystal, enthalpy: float, gradient: Float[np.ndarray, "x"]) -> bool:
        coordinates = self._coordinates
        if not coordinates.num_variables:
            self._end(f"nothing can move, and a force of {max(self._initial_forces):.3g} is left")
            return False
        try:
            hessian = model_hessian(coordinates, crystal)
        except InvalidStructureError as error:
            self._end(f"atoms collide: {error}")
            return False
        self._optimiser = QuasiNewton(
            coordinates.vector(crystal),
            hessian=hessian,
            metric=floor_hessian(coordinates, crystal),
            size=self._size,
            noise=2e-5 * crystal.num_atoms_primitive,
        )
        self._optimiser.start(enthalpy, gradient)
        return True

    def _size(self, point: Float[np.ndarray, "x"], step: Float[np.ndarray, "x"]) -> float:
        moved, strain = self._coordinates.displacements(self._coordinates.crystal(point), step)
        longest = float(np.linalg.norm(moved, axis=1).max())
        return max(longest / LONGEST_MOVE, float(np.abs(np.linalg.eigvalsh(strain)).max()) / LARGEST_STRAIN)

    def _advance(self, point: Float[np.ndarray, "x"]) -> None:
        """Make the crystal at a point the pending one, or one nearer if its atoms collide there."""
        assert self._optimiser is not None
        trouble = ""
        for _ in range(_SHORTENINGS):
            trial = self._coordinates.crystal(point)
            change = trial.volume_per_atom / self._start.volume_per_atom
            if not VOLUME_RANGE[0] < change < VOLUME_RANGE[1]:
                word = "collapsed" if change < 1 else "exploded"
                self._end(f"{word}: the volume went to {change:.2f} of the given one")
                return
            contact = closest_contact(trial)
            if contact.ratio >= min(COLLISION, 0.9 * self._nearest):
                self.pending, self._trial_nearest = trial, contact.ratio
                return
            trouble = contact.text
            point = self._optimiser.shorten()
        self._end(f"atoms collide: {trouble}")

    def _retreat(self, problem: str) -> None:
        """Go back half of a step that the potential could not evaluate."""
        self._shortenings += 1
        if self._optimiser is None or self._shortenings > _SHORTENINGS:
            self._end(problem)
        elif self.evaluations >= self._settings.max_evaluations:
            self._end(f"not converged after {self.evaluations} evaluations; {problem}")
        else:
            self._advance(self._optimiser.shorten())

    def _end(self, reason: str) -> None:
        self._reason = reason
        self.pending = None


def force_norms(
    crystal: Crystal, evaluation: Evaluation, *, pressure: float = 0.0, relax_cell: bool = True
) -> tuple[float, float]:
    """(largest force on an atom in eV/Å, largest row norm of ``V (stress + P) / N`` in eV per atom).

    Forces and stress are averaged over the space group first.

    Args:
        crystal: where the evaluation was made, in its primitive cell.
        evaluation: forces and stress.
        pressure: P, eV/Å^3.
        relax_cell: False leaves the cell's forces out.
    """
    forces, stress = symmetric_forces(crystal, evaluation)
    largest = float(np.linalg.norm(forces, axis=1).max())
    if not relax_cell:
        return largest, 0.0
    rows = crystal.volume_per_atom * (stress + pressure * np.eye(3))
    return largest, float(np.linalg.norm(rows, axis=1).max())


@dataclass(frozen=True)
class Contact:
    """The closest contact of a crystal, relative to the least distance that real crystals have.

    Attributes:
        ratio: distance over that least distance, of the pair where it is smallest; 1 where none is below 1.
        text: the pair and its distance in words; empty where none is below 1.
    """

    ratio: float
    text: str


def closest_contact(crystal: Crystal) -> Contact:
    """The pair of atoms that is nearest by the measure of what is usual for its elements; 0 for a collapsed cell."""
    cell = crystal.unit_cell("primitive")
    z = np.minimum(cell.atomic_numbers, NUM_ELEMENTS)
    least = minimum_distance_matrix()
    present = np.unique(z)
    try:
        pairs = neighbours_within(
            cell.lattice, cell.frac_coords, radius=float(least[np.ix_(present, present)].max())
        )
    except InvalidStructureError as error:
        return Contact(0.0, str(error))
    ratio = pairs.distances / least[z[pairs.first], z[pairs.second]]
    if not len(pairs) or ratio.min() >= 1:
        return Contact(1.0, "")
    worst = int(ratio.argmin())
    a, b = (element_symbol(int(cell.atomic_numbers[i])) for i in (pairs.first[worst], pairs.second[worst]))
    return Contact(float(ratio[worst]), f"{a} and {b} are {pairs.distances[worst]:.3f} Å apart")


def _found_group(crystal: Crystal, symprec: float) -> int | None:
    from nucleate.crystal.encoding import analyse  # noqa: PLC0415  moyopy loads late

    try:
        return int(analyse(crystal.unit_cell("primitive"), symprec=symprec).number)
    except SymmetryError:
        return None


def displacement_rms(initial: Crystal, relaxed: Crystal) -> float:
    """Root mean square displacement of the atoms in Å between two crystals with the same orbits.

        sqrt(mean_a |d_a|^2),   d_a = (f_a' - f_a - mean_b (f_b' - f_b)) (A + A') / 2

    f, A before and f', A' after: atoms correspond one to one, a common translation does not count, and the change of
    the cell does not count either. No matching is involved.
    """
    change = relaxed.image_coords() - initial.image_coords()
    change = (change - change.mean(axis=0)) @ (0.5 * (initial.lattice + relaxed.lattice))
    return float(np.sqrt((change**2).sum(axis=1).mean()))
