"""Phonons of a crystal from an interatomic potential: is it a minimum, and what its vibrations are worth."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from nucleate.crystal.crystal import Crystal
from nucleate.energetics.potential import Potential
from nucleate.errors import ConfigError, StructureTooLargeError
from nucleate.screening.force_constants import (
    ForceConstants,
    force_constants,
    frequencies,
    quiet_acoustic_warnings,
    require,
)
from nucleate.screening.supercells import Parity, SupercellChoice, choose_supercell
from nucleate.shapes import Float

if TYPE_CHECKING:
    from phonopy import Phonopy

KJ_PER_MOL = 1.0 / 96.48533212331
"""One kJ/mol in eV."""

BLOCK = 32
"""Crystals that share the potential's calls."""


@dataclass(frozen=True)
class PhononSettings:
    """What a phonon calculation is asked for.

    Attributes:
        min_length: least distance between opposite faces of the supercell, Å.
        screen_length: the same for the cheap screen; 0 leaves the screen out.
        max_atoms: most atoms in a supercell.
        displacement: length of the displacements, Å; long enough that the rounding of a float32 model (1e-5 eV/Å)
            stays below 1e-3 THz.
        tolerance: a mode is imaginary below minus this frequency, THz.
        acoustic_tolerance: the same for the three lowest modes nearer to Gamma than ``acoustic_radius``, where
            interpolation and the noise of the forces make small imaginary frequencies of sound; also the most that
            translations may differ from zero before translational symmetry is imposed, THz.
        acoustic_radius: radius around Gamma in 1/Å, with the factor 2 pi.
        mesh_length: phonopy's density of the mesh for thermal properties and density of states: ``n_i`` is the nearest
            number to ``mesh_length |b_i|``, Å.
        temperatures: of the thermal properties, K.
        path_points: most q points on one segment of the path.
    """

    min_length: float = 10.0
    screen_length: float = 6.0
    max_atoms: int = 500
    displacement: float = 0.05
    tolerance: float = 0.05
    acoustic_tolerance: float = 0.3
    acoustic_radius: float = 0.15
    mesh_length: float = 60.0
    temperatures: tuple[float, ...] = (0.0, 100.0, 200.0, 298.15, 400.0, 600.0, 800.0, 1000.0)
    path_points: int = 41

    def __post_init__(self) -> None:
        positive = (
            "min_length",
            "max_atoms",
            "displacement",
            "tolerance",
            "acoustic_tolerance",
            "mesh_length",
            "path_points",
        )
        for name in positive:
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"{name} of a phonon calculation must be positive, got {value}")
        if not 0 <= self.screen_length <= self.min_length:
            raise ConfigError(
                f"the cheap screen has a supercell shorter than the full one: 0 to {self.min_length:g} Å, got "
                f"{self.screen_length:g}"
            )
        if any(not (t >= 0 and math.isfinite(t)) for t in self.temperatures):
            raise ConfigError(f"temperatures in K must be zero or more, got {self.temperatures}")


@dataclass(frozen=True, eq=False)
class ImaginaryModes:
    """What a set of q points says about stability.

    Attributes:
        qpoints: (points, 3) fractions of the primitive reciprocal cell.
        frequencies: (points, modes) THz, ascending, imaginary ones negative.
        lowest: lowest frequency in THz, the three acoustic modes at Gamma left out.
        lowest_qpoint: where it is.
        count: modes that count as imaginary, over all points.
    """

    qpoints: Float[np.ndarray, "points 3"]
    frequencies: Float[np.ndarray, "points modes"]
    lowest: float
    lowest_qpoint: tuple[float, float, float]
    count: int

    @property
    def stable(self) -> bool:
        """Whether no mode counts as imaginary."""
        return self.count == 0


@dataclass(frozen=True, eq=False)
class ThermalProperties:
    """Harmonic thermal properties per atom.

    Attributes:
        temperatures: K.
        free_energy: Helmholtz energy of the vibrations with the zero-point energy, eV per atom.
        entropy: eV/K per atom.
        heat_capacity: at constant volume, eV/K per atom.
        zero_point_energy: eV per atom.
    """

    temperatures: Float[np.ndarray, "t"]
    free_energy: Float[np.ndarray, "t"]
    entropy: Float[np.ndarray, "t"]
    heat_capacity: Float[np.ndarray, "t"]
    zero_point_energy: float


@dataclass(frozen=True, eq=False)
class Phonons:
    """Phonons of one crystal.

    Attributes:
        crystal: whose they are.
        supercell: of the forces; None where there are no forces.
        evaluations: displaced supercells that were evaluated.
        modes: at the q points commensurate with the supercell, where the frequencies are exact (every other q point is
            an interpolation); None where ``problem`` is not empty.
        interpolated: on a mesh over the whole Brillouin zone; None after the cheap screen.
        thermal: None where a mode is imaginary, and after the cheap screen.
        acoustic_residual: see ``ForceConstants``.
        phonopy: phonopy's object, for band structures and everything else; None where there are no forces.
        problem: why there is no answer.
    """

    crystal: Crystal
    supercell: SupercellChoice | None
    evaluations: int
    modes: ImaginaryModes | None
    interpolated: ImaginaryModes | None
    thermal: ThermalProperties | None
    acoustic_residual: float
    phonopy: Phonopy | None
    problem: str = ""

    @property
    def stable(self) -> bool:
        """Whether there is an answer and it has no imaginary mode at a commensurate q point."""
        return not self.problem and self.modes is not None and self.modes.stable

    @property
    def reason(self) -> str:
        """Why the crystal is not stable, in words; empty if it is."""
        if self.problem or self.modes is None:
            return self.problem or "no phonons"
        if self.modes.stable:
            return ""
        q = ", ".join(f"{x:.3f}" for x in self.modes.lowest_qpoint)
        return (
            f"{self.modes.count} imaginary modes at the {len(self.modes.qpoints)} q points commensurate with the "
            f"supercell, the lowest {abs(self.modes.lowest):.3f}i THz at ({q})"
        )


def phonons(crystal: Crystal, potential: Potential, settings: PhononSettings | None = None) -> Phonons:
    """Phonons of a relaxed crystal in the full supercell, with thermal properties where it is stable.

    Args:
        crystal: relaxed with the same potential; forces that are left shift the frequencies.
        potential: gives the forces.
        settings: supercell, tolerances, mesh and temperatures.

    Raises:
        PotentialError: the potential failed, or the supercell is larger than allowed.
    """
    settings = settings or PhononSettings()
    found = next(_force_constants([crystal], potential, settings.min_length, settings))
    require(found)
    return _full(found, settings)


def screen_phonons(
    crystals: Iterable[Crystal], potential: Potential, settings: PhononSettings | None = None
) -> Iterator[Phonons]:
    """Phonons of each crystal, in order, from the small supercell first and the full one only where that is stable.

    At q points commensurate with a supercell the finite-displacement frequencies carry no error of the supercell's
    size. An imaginary mode found at Gamma or at another such point of a small supercell is therefore final, and the
    full one is never computed. Displaced supercells of several crystals share the potential's calls; a crystal that
    fails carries its problem. The small supercell repeats the cell an even number of times (or once), so that waves
    at the boundary of the zone are among them. ``evaluations`` counts both supercells.

    Args:
        crystals: relaxed with the same potential; read in blocks of ``BLOCK``.
        potential: gives the forces.
        settings: see ``phonons``.
    """
    settings = settings or PhononSettings()
    source = iter(crystals)
    while block := list(islice(source, BLOCK)):
        yield from _screen_block(block, potential, settings)


def _screen_block(
    block: Sequence[Crystal], potential: Potential, settings: PhononSettings
) -> Iterator[Phonons]:
    screened: list[ForceConstants | None] = [None] * len(block)
    if settings.screen_length:
        screened = list(_force_constants(block, potential, settings.screen_length, settings, "even"))
    first = [None if found is None else _commensurate(found, settings) for found in screened]
    survivors = [
        i
        for i, (crystal, found, result) in enumerate(zip(block, screened, first))
        if found is None or result is None or (result.stable and not _is_full(crystal, found, settings))
    ]
    rest = _force_constants([block[i] for i in survivors], potential, settings.min_length, settings)
    full = dict(zip(survivors, rest))
    for i, (found, result) in enumerate(zip(screened, first)):
        if i in full:
            spent = 0 if found is None else found.evaluations
            answer = _full(full[i], settings)
            yield replace(answer, evaluations=answer.evaluations + spent)
        elif result is not None and found is not None:
            yield _full(found, settings) if result.stable else result


def _is_full(crystal: Crystal, found: ForceConstants, settings: PhononSettings) -> bool:
    try:
        full = choose_supercell(crystal, settings.min_length, max_atoms=settings.max_atoms)
    except StructureTooLargeError:
        return False
    return full == found.supercell


def _force_constants(
    crystals: Sequence[Crystal],
    potential: Potential,
    min_length: float,
    settings: PhononSettings,
    parity: Parity = "any",
) -> Iterator[ForceConstants]:
    return force_constants(
        crystals,
        potential,
        min_length=min_length,
        distance=settings.displacement,
        max_atoms=settings.max_atoms,
        parity=parity,
    )


def _commensurate(found: ForceConstants, settings: PhononSettings) -> Phonons:
    """The answer at the commensurate q points."""
    if found.phonopy is None:
        return Phonons(
            found.crystal, found.supercell, found.evaluations, None, None, None, math.nan, None, found.problem
        )
    problem = ""
    if found.acoustic_residual > settings.acoustic_tolerance:
        problem = (
            f"the acoustic modes at Gamma are {found.acoustic_residual:.2f} THz from zero, more than "
            f"{settings.acoustic_tolerance:g}: the forces are too noisy for displacements of "
            f"{settings.displacement:g} Å, or the energy is not invariant under translation"
        )
    modes = modes_at(found.phonopy, commensurate_points(found.phonopy), settings)
    return Phonons(
        found.crystal,
        found.supercell,
        found.evaluations,
        modes,
        None,
        None,
        found.acoustic_residual,
        found.phonopy,
        problem,
    )


def _full(found: ForceConstants, settings: PhononSettings) -> Phonons:
    """The answer at the commensurate q points, on a mesh, and the thermal properties."""
    result = _commensurate(found, settings)
    if result.problem or found.phonopy is None:
        return result
    mesh = found.phonopy.run_mesh(settings.mesh_length, is_gamma_center=True)
    interpolated = judge(
        np.array(mesh.qpoints), np.array(mesh.frequencies), np.array(found.phonopy.primitive.cell), settings
    )
    thermal = thermal_properties(found.phonopy, settings) if result.stable else None
    return replace(result, interpolated=interpolated, thermal=thermal)


def commensurate_points(phonopy: Phonopy) -> Float[np.ndarray, "points 3"]:
    """The q points commensurate with the supercell, fractions of the primitive reciprocal cell, in [-1/2, 1/2]."""
    from phonopy.harmonic.dynmat_to_fc import get_commensurate_points  # noqa: PLC0415  an extra

    # rows of the supercell in units of the primitive cell; both matrices have columns in units of the unit cell
    primitive = np.array(phonopy.primitive_matrix, dtype=np.float64)
    matrix = np.linalg.inv(primitive) @ phonopy.supercell_matrix
    points = np.array(get_commensurate_points(np.rint(matrix).astype(int)))
    return points - np.rint(points)


def modes_at(
    phonopy: Phonopy, qpoints: Float[np.ndarray, "points 3"], settings: PhononSettings
) -> ImaginaryModes:
    """Which modes at q points are imaginary, see ``judge``."""
    return judge(qpoints, frequencies(phonopy, qpoints), np.array(phonopy.primitive.cell), settings)


def judge(
    qpoints: Float[np.ndarray, "points 3"],
    modes: Float[np.ndarray, "points modes"],
    lattice: Float[np.ndarray, "3 3"],
    settings: PhononSettings,
) -> ImaginaryModes:
    """Which modes are imaginary.

    At Gamma the three modes nearest to zero are translations and left out. Everywhere else, and for all others at
    Gamma, a mode is imaginary below ``-tolerance``; for the three lowest within ``acoustic_radius`` of Gamma
    (nearest reciprocal lattice vector) the limit is ``-acoustic_tolerance``.

    Args:
        qpoints: fractions of the reciprocal cell.
        modes: frequencies in THz, ascending, imaginary ones negative.
        lattice: primitive lattice, rows in Å.
        settings: the tolerances.
    """
    reduced = qpoints - np.rint(qpoints)
    shifts = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    reciprocal = 2 * np.pi * np.linalg.inv(lattice).T
    distance = np.linalg.norm((reduced[:, None] + shifts) @ reciprocal, axis=2).min(axis=1)
    limits = np.full(modes.shape, -settings.tolerance)
    limits[distance < settings.acoustic_radius, :3] = -settings.acoustic_tolerance
    values = np.array(modes)
    for point in np.flatnonzero(distance < 1e-6):
        values[point, np.argsort(np.abs(modes[point]))[:3]] = np.inf
    point, mode = np.unravel_index(int(values.argmin()), values.shape)
    lowest = float(values[point, mode])
    a, b, c = (float(x) for x in reduced[point])
    return ImaginaryModes(qpoints, modes, lowest, (a, b, c), int((values < limits).sum()))


def thermal_properties(phonopy: Phonopy, settings: PhononSettings) -> ThermalProperties:
    """Harmonic thermal properties on the mesh, acoustic modes at Gamma left out (phonopy), per atom.

    F = sum_qs hw/2 + kT ln(1 - exp(-hw/kT)),   S = -dF/dT,   C = T dS/dT
    """
    if phonopy.mesh is None:
        phonopy.run_mesh(settings.mesh_length, is_gamma_center=True)
    with quiet_acoustic_warnings():
        found = phonopy.run_thermal_properties(
            temperatures=list(settings.temperatures), exclude_gamma_acoustic=True
        )
    atoms = len(phonopy.primitive)
    return ThermalProperties(
        np.array(settings.temperatures),
        np.array(found.free_energy) * KJ_PER_MOL / atoms,
        np.array(found.entropy) * KJ_PER_MOL / 1000 / atoms,
        np.array(found.heat_capacity) * KJ_PER_MOL / 1000 / atoms,
        float(found.zero_point_energy or 0.0) * KJ_PER_MOL / atoms,
    )
