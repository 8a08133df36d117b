"""Thermal expansion and Gibbs energy in the quasi-harmonic approximation."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field

import numpy as np

from nucleate.crystal.crystal import Crystal
from nucleate.energetics.potential import GPA, Potential
from nucleate.errors import ConfigError, PotentialError
from nucleate.screening.fixed_volume import FixedVolumePoint, at_volume, relax_at_volume
from nucleate.screening.force_constants import force_constants_in, quiet_acoustic_warnings, require
from nucleate.screening.phonons import PhononSettings, commensurate_points, modes_at
from nucleate.screening.supercells import choose_supercell
from nucleate.shapes import Float

EQUATIONS_OF_STATE = ("vinet", "birch_murnaghan", "murnaghan")
LEAST_VOLUMES = 5


@dataclass(frozen=True)
class QuasiHarmonicSettings:
    """What a quasi-harmonic calculation is asked for.

    Attributes:
        volumes: number of volumes, at least 5.
        smallest: smallest volume relative to that of the given crystal.
        largest: largest volume likewise.
        max_temperature: K; the grid runs from 0 to it.
        temperature_step: K.
        equation_of_state: ``vinet``, ``birch_murnaghan`` or ``murnaghan``.
        pressure: GPa.
        fmax: of the relaxation at each volume, eV/Å.
        phonons: supercell, displacement and mesh.
    """

    volumes: int = 7
    smallest: float = 0.96
    largest: float = 1.08
    max_temperature: float = 1000.0
    temperature_step: float = 10.0
    equation_of_state: str = "vinet"
    pressure: float = 0.0
    fmax: float = 0.005
    phonons: PhononSettings = field(default_factory=PhononSettings)

    def __post_init__(self) -> None:
        if self.volumes < LEAST_VOLUMES:
            raise ConfigError(
                f"an equation of state has four parameters: at least {LEAST_VOLUMES} volumes are needed, "
                f"got {self.volumes}"
            )
        if not 0.5 < self.smallest < 1 < self.largest < 2:
            raise ConfigError(
                "the volumes lie on both sides of the given one, between 0.5 and 2 times it, got "
                f"{self.smallest} to {self.largest}"
            )
        if not 0 < self.temperature_step <= self.max_temperature / 4:
            raise ConfigError(
                f"temperatures go to {self.max_temperature} K in at least four steps, got {self.temperature_step} K"
            )
        if self.equation_of_state not in EQUATIONS_OF_STATE:
            raise ConfigError(
                f"equations of state are {', '.join(EQUATIONS_OF_STATE)}, got {self.equation_of_state!r}"
            )


@dataclass(frozen=True, eq=False)
class QuasiHarmonic:
    """What a crystal does when it is warmed.

    Attributes:
        points: the crystal relaxed at each volume.
        temperatures: K.
        volume: equilibrium volume, Å^3 per atom.
        gibbs_energy: with the energy of the potential and the vibrations, eV per atom.
        thermal_expansion: volumetric coefficient ``(1/V) dV/dT``, 1/K; 0 at the first temperature.
        bulk_modulus: isothermal, GPa.
        heat_capacity: at constant pressure, eV/K per atom.
        gruneisen: thermodynamic Grüneisen parameter, without unit; 0 at the first temperature.
        lattice: (temperatures, 6) a, b, c in Å and angles in degrees of the conventional cell at the equilibrium
            volume, each a quadratic in the volume.
    """

    points: tuple[FixedVolumePoint, ...]
    temperatures: Float[np.ndarray, "t"]
    volume: Float[np.ndarray, "t"]
    gibbs_energy: Float[np.ndarray, "t"]
    thermal_expansion: Float[np.ndarray, "t"]
    bulk_modulus: Float[np.ndarray, "t"]
    heat_capacity: Float[np.ndarray, "t"]
    gruneisen: Float[np.ndarray, "t"]
    lattice: Float[np.ndarray, "t 6"]


def quasi_harmonic(
    crystal: Crystal, potential: Potential, settings: QuasiHarmonicSettings | None = None
) -> QuasiHarmonic:
    """Thermal expansion of a relaxed crystal.

        G(T, P) = min_V [ E(V) + F_vib(V, T) + P V ]

    E(V) is the energy relaxed at fixed volume inside the symmetry, F_vib the harmonic free energy of the phonons
    there; the minimum comes from an equation of state fitted at each temperature (phonopy's ``run_qha``). All volumes
    share one supercell.

    Args:
        crystal: relaxed with the same potential.
        potential: gives energies and forces.
        settings: volumes, temperatures, equation of state and phonons.

    Raises:
        PotentialError: the potential failed, a relaxation did not converge, a mode is imaginary at one of the
            volumes, or the equilibrium volume leaves the range of the volumes at every temperature.
    """
    from ase.cell import Cell  # noqa: PLC0415  heavy
    from phonopy import run_qha  # noqa: PLC0415  an extra

    settings = settings or QuasiHarmonicSettings()
    points = []
    for ratio in np.linspace(settings.smallest, settings.largest, settings.volumes):
        point = relax_at_volume(at_volume(crystal, float(ratio)), potential, fmax=settings.fmax)
        if not point.converged:
            raise PotentialError(
                f"{crystal.formula} did not relax at {ratio:.3f} times its volume within {point.evaluations} "
                "evaluations"
            )
        points.append(point)
    phonon = settings.phonons
    supercell = choose_supercell(crystal, phonon.min_length, max_atoms=phonon.max_atoms)
    found = [
        require(constants)
        for constants in force_constants_in(
            [(point.crystal, supercell) for point in points], potential, distance=phonon.displacement
        )
    ]
    for point, phonopy in zip(points, found):
        modes = modes_at(phonopy, commensurate_points(phonopy), phonon)
        if not modes.stable:
            raise PotentialError(
                f"{crystal.formula} has {modes.count} imaginary modes (lowest {abs(modes.lowest):.2f}i THz) at "
                f"{point.volume / point.crystal.num_atoms_primitive:.3f} Å^3 per atom: the harmonic free energy means "
                "nothing there; choose volumes where it is stable"
            )
    # finite differences take the last temperature
    steps = math.floor(settings.max_temperature / settings.temperature_step + 1e-9) + 1
    temperatures = settings.temperature_step * np.arange(steps + 1, dtype=np.float64)
    with quiet_acoustic_warnings(), warnings.catch_warnings():
        # lattice parameters are fitted below, for every system, and the range of the volumes is judged there
        warnings.filterwarnings("ignore", "Lattice parameter", UserWarning)
        result = run_qha(
            found,
            temperatures,
            internal_energies=[point.energy for point in points],
            mesh=phonon.mesh_length,
            pressure=settings.pressure,
            eos=settings.equation_of_state,
            exclude_gamma_acoustic=True,
        )
    volumes = np.array([point.volume for point in points])
    inside = (result.equilibrium_volumes > volumes.min()) & (result.equilibrium_volumes < volumes.max())
    count = len(result.temperatures) if inside.all() else int(np.argmin(inside))
    if not count:
        raise PotentialError(
            f"the equilibrium volume of {crystal.formula} at 0 K, {result.equilibrium_volumes[0]:.2f} Å^3, is not "
            f"among the volumes {volumes.min():.2f} to {volumes.max():.2f}; shift them"
        )
    atoms = crystal.num_atoms_primitive
    cells = np.array([Cell(point.crystal.lattice).cellpar() for point in points])
    middle = volumes.mean()
    fits = np.polyfit(volumes / middle - 1, cells, 2)
    relative = np.array(result.equilibrium_volumes[:count]) / middle - 1
    return QuasiHarmonic(
        tuple(points),
        np.array(result.temperatures[:count]),
        np.array(result.equilibrium_volumes[:count]) / atoms,
        np.array(result.gibbs_free_energies[:count]) / atoms,
        np.array(result.thermal_expansion[:count]),
        np.array(result.bulk_moduli[:count]) / GPA,
        np.array(result.heat_capacity_P.heat_capacities[:count]) / atoms,
        np.array(result.gruneisen_parameters[:count]),
        np.stack([relative**2, relative, np.ones(count)], axis=1) @ fits,
    )
