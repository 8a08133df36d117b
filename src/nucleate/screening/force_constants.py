"""Force constants of crystals from displaced supercells: phonopy chooses them, the potential is batched."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.unit_cell import UnitCell
from nucleate.energetics.potential import Potential, evaluate_each
from nucleate.errors import ConfigError, PotentialError, StructureTooLargeError
from nucleate.screening.supercells import Parity, SupercellChoice, choose_supercell

if TYPE_CHECKING:
    from phonopy import Phonopy

FORCE_BATCH_ATOMS = 512
"""Most atoms in one call of the potential."""


@dataclass(frozen=True, eq=False)
class ForceConstants:
    """Harmonic force constants of one crystal, or why there are none.

    Attributes:
        crystal: whose they are.
        supercell: the supercell they were found in.
        phonopy: phonopy's object with the force constants set; translational and permutation symmetry imposed. None
            where ``problem`` is not empty.
        evaluations: displaced supercells that were evaluated.
        acoustic_residual: largest |frequency| in THz of the three translations at Gamma before translational symmetry
            was imposed: what the noise of the forces is worth.
        problem: why there are none.
    """

    crystal: Crystal
    supercell: SupercellChoice | None
    phonopy: Phonopy | None
    evaluations: int
    acoustic_residual: float
    problem: str = ""


@dataclass(eq=False)
class _Displaced:
    supercell: SupercellChoice
    phonopy: Phonopy
    cells: list[UnitCell]


def displaced_cells(crystal: Crystal, supercell: SupercellChoice, *, distance: float) -> _Displaced:
    """Phonopy's object of a crystal and the displaced supercells it needs forces of.

    Phonopy finds the displacements that the space group leaves: along lattice directions (and their sums), in both
    senses where the group does not map one on the other.

    Args:
        crystal: the crystal.
        supercell: its supercell.
        distance: length of a displacement, Å.
    """
    try:
        from phonopy import Phonopy  # noqa: PLC0415  an extra
        from phonopy.structure.atoms import PhonopyAtoms  # noqa: PLC0415  an extra
    except ModuleNotFoundError as error:
        raise ConfigError("phonopy is not installed: pip install nucleate[screen]") from error
    cell = crystal.unit_cell(supercell.kind)
    primitive = crystal.group.primitive_basis if supercell.kind == "conventional" else np.eye(3)
    phonopy = Phonopy(
        PhonopyAtoms(
            numbers=cell.atomic_numbers.tolist(), cell=cell.lattice, scaled_positions=cell.frac_coords
        ),
        supercell_matrix=np.diag(supercell.repeats),
        primitive_matrix=primitive,
    )
    phonopy.generate_displacements(distance=distance)
    displaced = phonopy.supercells_with_displacements or []
    cells = [
        UnitCell(np.array(s.cell), np.array(s.scaled_positions), np.array(s.numbers, dtype=np.int64))
        for s in displaced
        if s is not None
    ]
    return _Displaced(supercell, phonopy, cells)


def force_constants(
    crystals: Sequence[Crystal],
    potential: Potential,
    *,
    min_length: float,
    distance: float = 0.05,
    max_atoms: int = 500,
    parity: Parity = "any",
    batch_atoms: int = FORCE_BATCH_ATOMS,
) -> Iterator[ForceConstants]:
    """Force constants of each crystal, in order; displaced supercells of all crystals share the potential's calls.

    Crystals are taken until their displaced supercells fill a call; so memory does not grow with their number. One that
    fails carries its problem and takes no other with it.

    Args:
        crystals: relaxed crystals.
        potential: gives the forces.
        min_length: rule of the supercell, see ``choose_supercell``, Å.
        distance: length of a displacement, Å.
        max_atoms: most atoms in a supercell.
        parity: see ``choose_supercell``.
        batch_atoms: most atoms in one call of the potential.
    """
    settled: list[tuple[Crystal, SupercellChoice | str]] = []
    for crystal in crystals:
        try:
            settled.append(
                (crystal, choose_supercell(crystal, min_length, max_atoms=max_atoms, parity=parity))
            )
        except StructureTooLargeError as error:
            settled.append((crystal, str(error)))
    yield from force_constants_in(settled, potential, distance=distance, batch_atoms=batch_atoms)


def force_constants_in(
    crystals: Sequence[tuple[Crystal, SupercellChoice | str]],
    potential: Potential,
    *,
    distance: float = 0.05,
    batch_atoms: int = FORCE_BATCH_ATOMS,
) -> Iterator[ForceConstants]:
    """Force constants of crystals in given supercells, in order; see ``force_constants``.

    Args:
        crystals: each with its supercell, or with the reason why it has none.
        potential: gives the forces.
        distance: length of a displacement, Å.
        batch_atoms: most atoms in one call of the potential.
    """
    waiting: list[tuple[Crystal, _Displaced | str]] = []
    atoms = 0
    for crystal, supercell in crystals:
        displaced: _Displaced | str
        if isinstance(supercell, str):
            displaced = supercell
        else:
            try:
                displaced = displaced_cells(crystal, supercell, distance=distance)
            except (RuntimeError, ValueError) as error:  # phonopy's own, for a cell it cannot handle
                displaced = f"phonopy: {error}"
        waiting.append((crystal, displaced))
        if not isinstance(displaced, str):
            atoms += len(displaced.cells) * displaced.supercell.num_atoms
        if atoms >= batch_atoms:
            yield from _evaluated(waiting, potential, batch_atoms)
            waiting, atoms = [], 0
    yield from _evaluated(waiting, potential, batch_atoms)


def require(found: ForceConstants) -> Phonopy:
    """The phonopy object of force constants.

    Raises:
        PotentialError: there are none.
    """
    if found.phonopy is None:
        raise PotentialError(f"no force constants of {found.crystal.formula}: {found.problem}")
    return found.phonopy


def _evaluated(
    waiting: Sequence[tuple[Crystal, _Displaced | str]], potential: Potential, batch_atoms: int
) -> Iterator[ForceConstants]:
    cells = [cell for _, displaced in waiting if not isinstance(displaced, str) for cell in displaced.cells]
    evaluations = iter(evaluate_each(potential, cells, batch_atoms=batch_atoms))
    for crystal, displaced in waiting:
        if isinstance(displaced, str):
            yield ForceConstants(crystal, None, None, 0, float("nan"), displaced)
            continue
        own = [next(evaluations) for _ in displaced.cells]
        problem = next((e.problem for e in own if e.problem), "")
        if problem:
            yield ForceConstants(crystal, displaced.supercell, None, len(own), float("nan"), problem)
            continue
        phonopy = displaced.phonopy
        phonopy.forces = np.array([e.forces for e in own])
        phonopy.produce_force_constants(show_drift=False)
        residual = _acoustic_residual(phonopy)
        phonopy.symmetrize_force_constants(show_drift=False)
        yield ForceConstants(crystal, displaced.supercell, phonopy, len(own), residual)


def _acoustic_residual(phonopy: Phonopy) -> float:
    """Largest |frequency| of a translation, THz, from the force constants as they are.

    ``w^2 u = (1/M) sum_ij Phi_ij u`` over the atoms i of the primitive cell and all atoms j, M the mass of the
    primitive cell: zero for an energy that translations leave alone, whatever its anharmonicity.
    """
    constants = phonopy.force_constants
    if constants is None:
        return float("nan")
    primitive = phonopy.primitive
    sums = np.array(constants)[primitive.p2s_map].sum(axis=(0, 1)) / np.sum(primitive.masses)
    largest = float(np.abs(np.linalg.eigvalsh((sums + sums.T) / 2)).max())
    return float(phonopy.unit_conversion_factor) * largest**0.5


def frequencies(phonopy: Phonopy, qpoints: np.ndarray) -> np.ndarray:
    """Frequencies in THz at q points (fractions of the primitive reciprocal cell), (points, 3 atoms) ascending.

    Imaginary frequencies are negative numbers.
    """
    found = phonopy.run_qpoints(qpoints).frequencies
    return np.array(found)


@contextmanager
def quiet_acoustic_warnings() -> Iterator[None]:
    """Silence phonopy's warning about acoustic modes at Gamma, which is judged and reported here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Aa]coustic.*")
        yield
