"""The step ``phonon``: crystals with imaginary modes leave, the others get their free energy and a drawing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from nucleate.crystal import Crystal
from nucleate.energetics.batched_relaxation import relax
from nucleate.energetics.relaxation import ALGORITHM, Relaxation, RelaxationSettings
from nucleate.errors import ConfigError
from nucleate.evaluation.column import Column
from nucleate.screening.phonon_bands import band_structure, density_of_states, draw_phonons
from nucleate.screening.phonons import Phonons, PhononSettings, screen_phonons
from nucleate.screening.potentials import shared_potential
from nucleate.screening.step import Resources, StepItem, StepResult, Value, settings_digest

VERSION = f"phonon-1 {ALGORITHM}"

COLUMNS = (
    Column("phonon_stable", pa.bool_(), "Whether no mode is imaginary at the commensurate q points."),
    Column(
        "phonon_lowest_frequency",
        pa.float64(),
        "Lowest frequency at the q points commensurate with the supercell, without translations; imaginary ones are "
        "negative.",
        "THz",
    ),
    Column("phonon_imaginary_modes", pa.int64(), "Modes that count as imaginary at these q points."),
    Column("phonon_lowest_interpolated", pa.float64(), "Lowest frequency on a mesh between them.", "THz"),
    Column(
        "phonon_highest_frequency", pa.float64(), "Highest frequency at the commensurate q points.", "THz"
    ),
    Column("phonon_free_energy", pa.float64(), "Free energy of the vibrations at 298.15 K.", "eV/atom"),
    Column("phonon_zero_point_energy", pa.float64(), "Zero-point energy.", "eV/atom"),
    Column("phonon_entropy", pa.float64(), "Entropy of the vibrations at 298.15 K.", "eV/K/atom"),
    Column("phonon_heat_capacity", pa.float64(), "Heat capacity at 298.15 K, volume held.", "eV/K/atom"),
    Column("phonon_supercell", pa.string(), "The supercell: cells along a, b, c and which cell."),
    Column("phonon_supercell_atoms", pa.int64(), "Its atoms."),
    Column("phonon_evaluations", pa.int64(), "Displaced supercells that were evaluated."),
    Column("phonon_acoustic_residual", pa.float64(), "Noise of the forces at Gamma.", "THz"),
)


@dataclass(frozen=True)
class Settings:
    """Settings of the step ``phonon``.

    Attributes:
        min_length: least distance between opposite faces of the supercell, Å.
        screen_length: the same for the cheap screen that comes first; 0 leaves it out.
        max_atoms: most atoms in a supercell; a crystal that needs more fails.
        displacement: length of the displacements, Å.
        tolerance: a mode is imaginary below minus this frequency, THz.
        acoustic_tolerance: the same for the three lowest modes near Gamma, THz.
        acoustic_radius: what is near Gamma, 1/Å with the factor 2 pi.
        mesh_length: density of the q mesh, Å.
        fmax: the crystal is relaxed to this force (eV/Å) inside its symmetry first; 0 takes it as it is.
        draw: whether band structure and density of states are drawn (``phonons.png``).
        batch_size: crystals in a task.
    """

    min_length: float = 10.0
    screen_length: float = 6.0
    max_atoms: int = 500
    displacement: float = 0.05
    tolerance: float = 0.1
    acoustic_tolerance: float = 0.5
    acoustic_radius: float = 0.15
    mesh_length: float = 60.0
    fmax: float = 0.005
    draw: bool = True
    batch_size: int = 8

    def __post_init__(self) -> None:
        if not self.fmax >= 0:
            raise ConfigError(f"phonon.fmax must be zero or a force in eV/Å, got {self.fmax}")
        if self.batch_size < 1:
            raise ConfigError(f"phonon.batch_size must be at least 1, got {self.batch_size}")
        self.phonons()

    def phonons(self) -> PhononSettings:
        """What the phonons are asked for."""
        return PhononSettings(
            min_length=self.min_length,
            screen_length=self.screen_length,
            max_atoms=self.max_atoms,
            displacement=self.displacement,
            tolerance=self.tolerance,
            acoustic_tolerance=self.acoustic_tolerance,
            acoustic_radius=self.acoustic_radius,
            mesh_length=self.mesh_length,
            temperatures=(298.15,),
        )


@dataclass(frozen=True)
class PhononStep:
    """Judges crystals by their phonons; see ``Settings``."""

    settings: Settings
    resources: Resources
    name: str = "phonon"
    columns: tuple[Column, ...] = COLUMNS
    uses: tuple[str, ...] = ()

    @property
    def batch_size(self) -> int:
        """Crystals in a task."""
        return self.settings.batch_size

    def digest(self) -> str:
        """Hash over algorithm, settings and potential."""
        relevant = {n: v for n, v in asdict(self.settings).items() if n != "batch_size"}
        identity = shared_potential(self.resources.potential, self.resources.device).identity
        return settings_digest(self.name, VERSION, relevant, identity)

    def run(self, candidate_id: str, crystal: Crystal, properties: Mapping[str, Any]) -> StepResult:
        """The verdict on one crystal."""
        return next(result for _, result in self.run_many([StepItem(candidate_id, crystal, properties)]))

    def run_many(self, items: Sequence[StepItem]) -> Iterator[tuple[int, StepResult]]:
        """(place, verdict) of all crystals; displaced supercells of all of them share the potential's calls."""
        potential = shared_potential(self.resources.potential, self.resources.device)
        crystals = [item.crystal for item in items]
        if self.settings.fmax:
            relaxations = relax(crystals, potential, settings=RelaxationSettings(fmax=self.settings.fmax))
            for place, relaxation in enumerate(relaxations):
                if not at_rest(relaxation):
                    reason = f"not at rest before the phonons: {relaxation.reason}"
                    yield place, StepResult(items[place].crystal, "failed", reason=reason)
            places = [place for place, relaxation in enumerate(relaxations) if at_rest(relaxation)]
            crystals = [relaxations[place].crystal for place in places]
        else:
            places = list(range(len(items)))
        for place, found in zip(places, screen_phonons(crystals, potential, self.settings.phonons())):
            yield place, self._verdict(found)

    def _verdict(self, found: Phonons) -> StepResult:
        columns = phonon_columns(found)
        if found.problem:
            return StepResult(found.crystal, "failed", columns, found.problem)
        files = {}
        if self.settings.draw and found.phonopy is not None:
            files["phonons.png"] = draw_phonons(
                band_structure(found.phonopy),
                density_of_states(found.phonopy, mesh_length=self.settings.mesh_length),
                title=f"{found.crystal.formula}, {found.crystal.group.symbol}",
            )
        if not found.stable:
            return StepResult(found.crystal, "left", columns, found.reason, files)
        return StepResult(found.crystal, "passed", columns, files=files)


def at_rest(relaxation: Relaxation) -> bool:
    """Whether a relaxation reached its limit, or the noise of the potential at forces that shift no verdict.

    A float32 model may stall just above a tight limit: up to 0.02 eV/Å is let through.
    """
    if relaxation.converged:
        return True
    return relaxation.reason.startswith("stalled") and relaxation.max_force < 0.02


def phonon_columns(found: Phonons) -> dict[str, Value]:
    """The columns of the step for one crystal."""
    columns: dict[str, Value] = {"phonon_evaluations": found.evaluations}
    if found.supercell is not None:
        columns["phonon_supercell"] = " ".join(map(str, found.supercell.repeats)) + f" {found.supercell.kind}"
        columns["phonon_supercell_atoms"] = found.supercell.num_atoms
    if np.isfinite(found.acoustic_residual):
        columns["phonon_acoustic_residual"] = found.acoustic_residual
    if found.modes is not None:
        lowest = found.modes.lowest
        columns |= {
            "phonon_stable": found.stable,
            "phonon_lowest_frequency": lowest if np.isfinite(lowest) else None,
            "phonon_imaginary_modes": found.modes.count,
            "phonon_highest_frequency": float(found.modes.frequencies.max()),
        }
    if found.interpolated is not None and np.isfinite(found.interpolated.lowest):
        columns["phonon_lowest_interpolated"] = found.interpolated.lowest
    if found.thermal is not None:
        columns |= {
            "phonon_free_energy": float(found.thermal.free_energy[0]),
            "phonon_zero_point_energy": found.thermal.zero_point_energy,
            "phonon_entropy": float(found.thermal.entropy[0]),
            "phonon_heat_capacity": float(found.thermal.heat_capacity[0]),
        }
    return columns


def make_step(settings: Settings, resources: Resources) -> PhononStep:
    """The step ``phonon``."""
    import phonopy  # noqa: F401, PLC0415  an extra; what is missing is named before the run starts

    return PhononStep(settings, resources)
