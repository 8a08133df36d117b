"""What a screening is asked to do: its steps in order, and the settings of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from nucleate.errors import ConfigError
from nucleate.evaluation.candidate import SYMPREC
from nucleate.evaluation.matcher import Matcher
from nucleate.evaluation.settings import changed_settings
from nucleate.screening.step import STEP_MODULES, Resources, step_settings

DEDUPE = "dedupe"
CHANGING = ("relax", "dft")
STEP_NAMES = (DEDUPE, *STEP_MODULES)
BUCKETS = ("prototype", "formula")


@dataclass(frozen=True)
class DedupeSettings:
    """Settings of the step ``dedupe``.

    Attributes:
        bucket: which crystals are compared: those of one ``prototype`` with the same elements (the bucket key of the
            crystal core), or all of one ``formula``, which also finds copies whose symmetry is slightly broken and
            costs more.
        relaxed_bucket: the same for crystals that a step has changed. Relaxations end a little off a higher symmetry,
            so that equal crystals may stand in different groups: ``formula`` by default.
        ltol, stol, angle_tol: tolerances of pymatgen's StructureMatcher.
    """

    bucket: str = "prototype"
    relaxed_bucket: str = "formula"
    ltol: float = 0.2
    stol: float = 0.3
    angle_tol: float = 5.0

    def __post_init__(self) -> None:
        for name in ("bucket", "relaxed_bucket"):
            if getattr(self, name) not in BUCKETS:
                raise ConfigError(
                    f"dedupe.{name} is one of {', '.join(BUCKETS)}, got {getattr(self, name)!r}"
                )
        self.matcher()

    def matcher(self) -> Matcher:
        """StructureMatcher with these tolerances."""
        return Matcher(self.ltol, self.stol, self.angle_tol)


@dataclass(frozen=True)
class ScreeningSettings:
    """A whole screening.

    Attributes:
        steps: names in order, each once; ``dedupe`` also a second time after a step that changes crystals.
        of_step: the settings of each step by its name.
        resources: potential, reference, known energies.
        timeout: seconds that a step may take for one crystal before its process is killed.
        symprec: tolerance (Å) at which the candidates are encoded.
        max_atoms: larger cells are not read.
        diagrams: most hull diagrams that are drawn.
    """

    steps: tuple[str, ...] = (DEDUPE, "relax", "hull")
    of_step: Mapping[str, Any] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)
    timeout: float = 600.0
    symprec: float = SYMPREC
    max_atoms: int = 1000
    diagrams: int = 12

    def __post_init__(self) -> None:
        if not self.steps:
            raise ConfigError(f"A screening needs at least one step of {', '.join(STEP_NAMES)}")
        for name in self.steps:
            if name not in STEP_NAMES:
                raise ConfigError(f"There is no step {name!r}; there are {', '.join(STEP_NAMES)}")
            if self.steps.count(name) > 1 and name != DEDUPE:
                raise ConfigError(
                    f"The step {name} stands {self.steps.count(name)} times in --steps: once is enough"
                )
        self._check_dedupe()
        if not self.timeout > 0:
            raise ConfigError(f"the timeout must be a positive number of seconds, got {self.timeout}")
        pressure = getattr(self.of_step.get("relax"), "pressure", 0.0)
        if pressure and "hull" in self.steps:
            raise ConfigError(
                f"The hull is one of energies without pressure, and relax.pressure is {pressure:g} GPa: leave out the "
                "step hull, or the pressure"
            )
        if self.resources.energy_column and "relax" in self.steps:
            raise ConfigError(
                f"The energies of column {self.resources.energy_column!r} are of the crystals as given: leave out "
                "the step relax, or --energy-column"
            )

    def _check_dedupe(self) -> None:
        first, *others = [place for place, name in enumerate(self.steps) if name == DEDUPE] or [0]
        if len(others) > 1 or (others and not set(CHANGING) & set(self.steps[first : others[0]])):
            raise ConfigError(
                f"The step {DEDUPE} stands at most twice in --steps, the second time after one that changes crystals "
                f"({', '.join(CHANGING)}): {DEDUPE},relax,{DEDUPE},hull"
            )

    @classmethod
    def of(cls, steps: Sequence[str], texts: Iterable[str] = (), **options: Any) -> ScreeningSettings:
        """Settings of steps with changes ``STEP.NAME=VALUE``.

        Args:
            steps: names in order.
            texts: changes, such as ``relax.fmax=0.01``.
            options: the other attributes.

        Raises:
            ConfigError: a change of a step that is not asked for, an unknown name, a value that cannot be.
        """
        changes: dict[str, list[str]] = {name: [] for name in steps}
        for text in texts:
            step, dot, rest = text.partition(".")
            if not dot or "=" not in rest:
                raise ConfigError(f"A setting is STEP.NAME=VALUE, such as relax.fmax=0.01; got {text!r}")
            if step not in changes:
                raise ConfigError(f"{text!r} is a setting of the step {step!r}, which is not in --steps")
            changes[step].append(rest)
        of_step = {}
        for name, its in changes.items():
            if name not in STEP_NAMES:
                raise ConfigError(f"There is no step {name!r}; there are {', '.join(STEP_NAMES)}")
            kind = DedupeSettings if name == DEDUPE else step_settings(name)
            of_step[name] = changed_settings(kind(), its)
        return cls(tuple(steps), of_step, **options)

    def to_json(self) -> dict[str, Any]:
        """The settings as they stand in ``run.json``; what only decides where and how fast is left out."""
        resources = {
            n: v for n, v in asdict(self.resources).items() if n not in ("cache", "scratch", "device")
        }
        return {
            "steps": list(self.steps),
            "settings": {name: asdict(value) for name, value in self.of_step.items()},
            **resources,
            "timeout": self.timeout,
            "symprec": self.symprec,
            "max_atoms": self.max_atoms,
        }
