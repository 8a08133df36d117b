"""The step ``hull``: energy above the hull of a reference, formation energy, decomposition, what the hull knows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from nucleate.crystal import Crystal
from nucleate.data.store import Store
from nucleate.energetics.hull import ReferenceHull
from nucleate.energetics.reference_energies import single_points
from nucleate.errors import ConfigError
from nucleate.evaluation.column import Column
from nucleate.evaluation.stability import COLUMNS as STABILITY_COLUMNS
from nucleate.evaluation.stability import hull_columns
from nucleate.screening.potentials import shared_potential
from nucleate.screening.reference_hull import reference_hull
from nucleate.screening.step import Resources, StepItem, StepResult, Value, settings_digest

VERSION = "hull-1"
_SHARED = (
    "energy_above_hull",
    "formation_energy",
    "decomposition",
    "hull_missing_elements",
    "hull_coverage",
    "hull_subsystems",
    "hull_entries",
)
COLUMNS = (
    Column("hull_energy_per_atom", pa.float64(), "Energy that was placed against the hull.", "eV/atom"),
    Column("hull_energy_source", pa.string(), "Where that energy is from."),
    *(column for column in STABILITY_COLUMNS if column.name in _SHARED),
)


@dataclass(frozen=True)
class Settings:
    """Settings of the step ``hull``.

    Attributes:
        threshold: crystals further above the hull (eV/atom) leave.
        window: reference crystals nearer than this (eV/atom) to the hull of unrelaxed energies are relaxed.
        fmax: convergence of these relaxations, eV/Å.
        formation: whether the known energies of ``energy_column`` are formation energies: elements are then at zero.
        unknown: whether crystals go on whose chemistry the hull does not know (an element without a reference, no
            compound in any subsystem).
        batch_size: crystals in a task.
    """

    threshold: float = 0.1
    window: float = 0.1
    fmax: float = 0.03
    formation: bool = False
    unknown: bool = False
    batch_size: int = 256

    def __post_init__(self) -> None:
        if not math.isfinite(self.threshold):
            raise ConfigError(f"hull.threshold must be a number in eV/atom, got {self.threshold}")
        if self.batch_size < 1:
            raise ConfigError(f"hull.batch_size must be at least 1, got {self.batch_size}")


@dataclass(frozen=True)
class HullStep:
    """Places crystals against the hull of a reference; see ``Settings``.

    The energy is the known one of ``energy_column``, else that of the step ``relax``, else the potential's energy of
    the crystal as it is.
    """

    settings: Settings
    resources: Resources
    name: str = "hull"
    columns: tuple[Column, ...] = COLUMNS

    @property
    def uses(self) -> tuple[str, ...]:
        """The property that holds the energy."""
        return (self._column,)

    @property
    def batch_size(self) -> int:
        """Crystals in a task."""
        return self.settings.batch_size

    @property
    def is_quick(self) -> bool:
        """Whether no energy has to be computed."""
        return bool(self.resources.energy_column)

    by_chemical_system = True
    """Crystals of one chemical system go to one worker, so that its phase diagram is made once."""

    def digest(self) -> str:
        """Hash over settings, reference, and potential or energy column."""
        relevant = {n: v for n, v in asdict(self.settings).items() if n != "batch_size"}
        reference = self.resources.reference
        content = None if reference is None else Store.open(reference).content_hash
        column = self.resources.energy_column
        source = column or shared_potential(self.resources.potential, self.resources.device).identity
        self._hull()
        return settings_digest(self.name, VERSION, relevant, content, bool(column), source)

    def run(self, candidate_id: str, crystal: Crystal, properties: Mapping[str, Any]) -> StepResult:
        """The verdict on one crystal."""
        return next(result for _, result in self.run_many([StepItem(candidate_id, crystal, properties)]))

    def run_many(self, items: Sequence[StepItem]) -> Iterator[tuple[int, StepResult]]:
        """(place, verdict) of all crystals; energies that are missing come from the potential together."""
        energies = {place: _number(item.properties.get(self._column)) for place, item in enumerate(items)}
        sources = dict.fromkeys(energies, self._column)
        problems: dict[int, str] = {}
        missing = [place for place, energy in energies.items() if energy is None]
        if self.resources.energy_column:
            problems = dict.fromkeys(missing, f"it has no number in {self._column}")
        elif missing:
            potential = shared_potential(self.resources.potential, self.resources.device)
            points = single_points([items[place].crystal for place in missing], potential)
            for place, (energy, problem) in zip(missing, points):
                energies[place], sources[place] = energy, f"{potential.name}, not relaxed"
                if energy is None:
                    problems[place] = f"no energy: {problem}"
        hull = self._hull()
        for place, item in enumerate(items):
            energy = energies[place]
            if energy is None:
                yield place, StepResult(item.crystal, "failed", reason=problems[place])
            else:
                yield place, self._placed(item.crystal, energy, sources[place], hull)

    def _placed(self, crystal: Crystal, energy: float, source: str, hull: ReferenceHull) -> StepResult:
        place = hull.place(crystal.composition, energy)
        columns: dict[str, Value] = {"hull_energy_per_atom": energy, "hull_energy_source": source}
        columns |= hull_columns(place)
        above = place.energy_above_hull
        if above is None or not place.is_known:
            if self.settings.unknown:
                return StepResult(crystal, "passed", columns)
            elements = " ".join(place.completeness.missing_elements)
            known = f"no reference for {elements}" if elements else "no compound in any of its subsystems"
            return StepResult(crystal, "left", columns, f"unknown chemistry: {known}")
        if above > self.settings.threshold + 1e-9:
            reason = f"{above:.3f} eV/atom above the hull, more than {self.settings.threshold:g}"
            return StepResult(crystal, "left", columns, reason)
        return StepResult(crystal, "passed", columns)

    @property
    def _column(self) -> str:
        return f"given.{self.resources.energy_column}" if self.resources.energy_column else "energy_per_atom"

    def _hull(self) -> ReferenceHull:
        return reference_hull(
            self.resources, self.settings.window, self.settings.fmax, self.settings.formation
        )


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def make_step(settings: Settings, resources: Resources) -> HullStep:
    """The step, for ``screening.step.make_step``."""
    return HullStep(settings, resources)
