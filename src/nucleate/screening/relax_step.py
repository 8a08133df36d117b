"""The step ``relax``: many crystals through one potential, each inside its symmetry, then once without it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from nucleate.crystal import Crystal, encode
from nucleate.energetics.batched_relaxation import relax_stream
from nucleate.energetics.potential import GPA
from nucleate.energetics.relaxation import ALGORITHM, Relaxation, RelaxationSettings, displacement_rms
from nucleate.errors import ConfigError, NucleateError
from nucleate.evaluation.column import Column
from nucleate.screening.potentials import SharedPotential, shared_potential
from nucleate.screening.step import Resources, Status, StepItem, StepResult, Value, settings_digest
from nucleate.screening.symmetry_survival import displaced, survival

VERSION = f"relax-1 {ALGORITHM}"
BROKEN = ("keep", "follow", "leave")
FAILED = "the potential failed"

COLUMNS = (
    Column("energy_per_atom", pa.float64(), "Energy of the relaxed crystal, without P V.", "eV/atom"),
    Column("enthalpy_per_atom", pa.float64(), "Energy plus P V of the relaxed crystal.", "eV/atom"),
    Column("unrelaxed_energy_per_atom", pa.float64(), "Energy of the crystal as it came.", "eV/atom"),
    Column("relaxation", pa.string(), "'converged', or why the relaxation did not."),
    Column("relaxation_evaluations", pa.int64(), "Evaluations of the potential in the relaxation."),
    Column("relaxed_max_force", pa.float64(), "Largest force left on an atom.", "eV/Å"),
    Column("relaxed_volume_ratio", pa.float64(), "Volume after over volume before."),
    Column("rmsd_to_relaxed", pa.float64(), "Root mean square displacement of the atoms.", "Å"),
    Column("relaxed_space_group", pa.int64(), "Space group of the relaxed crystal at 0.01 Å."),
    Column("symmetry_survived", pa.bool_(), "Whether the group came back when nothing held it."),
    Column("symmetry_check", pa.string(), "Group before and after the free relaxation, by symprec."),
    Column("symmetry_energy_change", pa.float64(), "Energy the free relaxation gained (below 0).", "eV/atom"),
    Column("symmetry_evaluations", pa.int64(), "Evaluations of the potential in the free relaxation."),
)


@dataclass(frozen=True)
class Settings:
    """Settings of the step ``relax``.

    Attributes:
        fmax: largest force (eV/Å) and row of the cell's forces (eV per atom) at convergence.
        max_evaluations: most evaluations of the potential for one crystal.
        pressure: external pressure, GPa.
        cell: whether the cell relaxes too.
        check: whether every relaxed crystal is displaced and relaxed again without symmetry.
        displacement: root mean square displacement of that check, Å.
        strain: its random strain.
        check_fmax: convergence of the free relaxation, eV/Å; tighter, so that atoms on a flat saddle leave it.
        symprecs: tolerances (Å) at which the groups are compared.
        broken: what happens to a crystal whose symmetry does not survive: ``keep`` goes on as it is, flagged;
            ``follow`` goes on as the crystal the free relaxation found; ``leave`` is out.
        batch_size: crystals in a task.
        batch_atoms: atoms that are under way together, most in one call of the potential.
    """

    fmax: float = 0.03
    max_evaluations: int = 500
    pressure: float = 0.0
    cell: bool = True
    check: bool = True
    displacement: float = 0.05
    strain: float = 0.02
    check_fmax: float = 0.005
    symprecs: tuple[float, ...] = (0.01, 0.05, 0.1)
    broken: str = "keep"
    batch_size: int = 16
    batch_atoms: int = 128

    def __post_init__(self) -> None:
        if self.broken not in BROKEN:
            raise ConfigError(f"relax.broken is one of {', '.join(BROKEN)}, got {self.broken!r}")
        if not self.symprecs or not all(0 < symprec < 1 for symprec in self.symprecs):
            raise ConfigError(f"relax.symprecs are distances between 0 and 1 Å, got {self.symprecs}")
        if not 0 < self.displacement < 1:
            raise ConfigError(f"relax.displacement must lie between 0 and 1 Å, got {self.displacement}")
        if not 0 <= self.strain < 0.1:
            raise ConfigError(f"relax.strain must lie between 0 and 0.1, got {self.strain}")
        if self.batch_size < 1 or self.batch_atoms < 1:
            raise ConfigError("relax.batch_size and relax.batch_atoms must be at least 1")
        self.relaxation()
        self.free_relaxation()

    def relaxation(self) -> RelaxationSettings:
        """What the relaxation inside the symmetry is asked for."""
        return RelaxationSettings(self.fmax, self.max_evaluations, self.cell, self.pressure)

    def free_relaxation(self) -> RelaxationSettings:
        """What the relaxation in P1 is asked for."""
        return RelaxationSettings(self.check_fmax, self.max_evaluations, self.cell, self.pressure)


@dataclass(frozen=True)
class RelaxStep:
    """Relaxes crystals inside their symmetry and checks whether it survives without; see ``Settings``.

    A crystal leaves when it does not converge, explodes, collapses or its atoms collide; it fails when the potential
    gives no finite numbers for it.
    """

    settings: Settings
    resources: Resources
    name: str = "relax"
    columns: tuple[Column, ...] = COLUMNS
    uses: tuple[str, ...] = ()
    batch_size: int = field(default=1)

    def digest(self) -> str:
        """Hash over algorithm, settings and potential."""
        relevant = {n: v for n, v in asdict(self.settings).items() if not n.startswith("batch_")}
        return settings_digest(self.name, VERSION, relevant, self._potential().identity)

    def run(self, candidate_id: str, crystal: Crystal, properties: Mapping[str, Any]) -> StepResult:
        """The verdict on one crystal."""
        item = StepItem(candidate_id, crystal, properties)
        return next(result for _, result in self.run_many([item]))

    def run_many(self, items: Sequence[StepItem]) -> Iterator[tuple[int, StepResult]]:
        """(place, verdict) of all crystals: first inside their symmetry together, then freely together."""
        relaxed: dict[int, Relaxation] = {}
        for place, relaxation in self._relax([item.crystal for item in items], self.settings.relaxation()):
            if relaxation.converged and self.settings.check:
                relaxed[place] = relaxation
            else:
                yield place, self._judged(items[place].crystal, relaxation)
        moved: dict[int, Crystal] = {}
        for place, relaxation in relaxed.items():
            try:
                moved[place] = displaced(
                    relaxation.crystal, displacement=self.settings.displacement, strain=self.settings.strain
                )
            except NucleateError as error:
                trouble = f"could not be displaced: {' '.join(str(error).split())}"
                yield place, self._judged(items[place].crystal, relaxation, trouble)
        places = list(moved)
        for number, free in self._relax(list(moved.values()), self.settings.free_relaxation()):
            place = places[number]
            yield place, self._checked(items[place].crystal, relaxed[place], free)

    def _potential(self) -> SharedPotential:
        return shared_potential(self.resources.potential, self.resources.device)

    def _relax(
        self, crystals: Sequence[Crystal], settings: RelaxationSettings
    ) -> Iterator[tuple[int, Relaxation]]:
        return relax_stream(
            crystals, self._potential(), settings=settings, batch_atoms=self.settings.batch_atoms
        )

    def _judged(self, given: Crystal, relaxation: Relaxation, trouble: str = "") -> StepResult:
        columns = self._relaxation_columns(given, relaxation)
        if trouble:
            columns["symmetry_check"] = trouble
        if relaxation.converged:
            return StepResult(symmetric(relaxation), "passed", columns)
        status: Status = "failed" if relaxation.reason.startswith(FAILED) else "left"
        return StepResult(relaxation.crystal, status, columns, relaxation.reason)

    def _checked(self, given: Crystal, relaxation: Relaxation, free: Relaxation) -> StepResult:
        columns = self._relaxation_columns(given, relaxation)
        columns["symmetry_evaluations"] = free.evaluations
        if math.isnan(free.energy):
            columns["symmetry_check"] = f"free relaxation: {free.reason}"
            return StepResult(symmetric(relaxation), "passed", columns)
        change = self._enthalpy(free) - self._enthalpy(relaxation)
        found = survival(relaxation.crystal, free.crystal, change, self.settings.symprecs)
        columns["symmetry_energy_change"] = found.energy_change
        columns["symmetry_check"] = found.text + (
            "" if free.converged else f"; free relaxation: {free.reason}"
        )
        if not free.converged and not found.survived:
            # Where it came to rest is not known: the symmetry may or may not have come back.
            return StepResult(symmetric(relaxation), "passed", columns)
        columns["symmetry_survived"] = found.survived
        if found.survived or self.settings.broken == "keep":
            return StepResult(symmetric(relaxation), "passed", columns)
        if self.settings.broken == "leave":
            reason = f"its symmetry did not survive: {found.text}; {1000 * found.energy_change:.1f} meV/atom"
            return StepResult(symmetric(relaxation), "left", columns, reason)
        crystal = encoded_again(free.crystal, symprec=min(self.settings.symprecs))
        columns |= {
            "energy_per_atom": free.energy_per_atom,
            "enthalpy_per_atom": self._enthalpy(free),
            "relaxed_max_force": free.max_force,
            "relaxed_space_group": crystal.space_group_number,
            "relaxed_volume_ratio": crystal.volume_per_atom / given.volume_per_atom,
        }
        return StepResult(crystal, "passed", columns)

    def _enthalpy(self, relaxation: Relaxation) -> float:
        """eV/atom."""
        return relaxation.energy_per_atom + self.settings.pressure * GPA * relaxation.crystal.volume_per_atom

    def _relaxation_columns(self, given: Crystal, relaxation: Relaxation) -> dict[str, Value]:
        columns: dict[str, Value] = {
            "relaxation": relaxation.reason,
            "relaxation_evaluations": relaxation.evaluations,
            "unrelaxed_energy_per_atom": relaxation.initial_energy_per_atom,
        }
        if math.isnan(relaxation.energy):
            return columns
        return columns | {
            "energy_per_atom": relaxation.energy_per_atom,
            "enthalpy_per_atom": self._enthalpy(relaxation),
            "relaxed_max_force": relaxation.max_force,
            "relaxed_volume_ratio": relaxation.volume_change,
            "rmsd_to_relaxed": displacement_rms(given, relaxation.crystal),
            "relaxed_space_group": relaxation.space_group_found,
        }


def symmetric(relaxation: Relaxation) -> Crystal:
    """The relaxed crystal in the group it has, which is higher than its own where it came to a more symmetric place."""
    if not relaxation.has_higher_symmetry:
        return relaxation.crystal
    return encoded_again(relaxation.crystal, symprec=0.01)


def encoded_again(crystal: Crystal, *, symprec: float) -> Crystal:
    """The crystal in the group found at a tolerance, itself where none can be found."""
    try:
        return encode(crystal.unit_cell("primitive"), symprec=symprec).crystal
    except NucleateError:
        return crystal


def make_step(settings: Settings, resources: Resources) -> RelaxStep:
    """The step, for ``screening.step.make_step``."""
    # An ASE calculator does one crystal after the other: alone, the one that hangs is known at once.
    batches = resources.potential.partition(":")[0] == "chgnet"
    return RelaxStep(settings, resources, batch_size=settings.batch_size if batches else 1)
