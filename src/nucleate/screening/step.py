"""What a step of the funnel is: one crystal in, a verdict with columns and files out; pure, so it can be cached."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from types import MappingProxyType
from typing import Any, Literal, Protocol, runtime_checkable

from nucleate.crystal import Crystal
from nucleate.errors import ConfigError
from nucleate.evaluation.column import Column

Value = float | int | str | bool | None
Status = Literal["passed", "left", "failed"]

STEP_MODULES: Mapping[str, str] = MappingProxyType(
    {
        "relax": "nucleate.screening.relax_step",
        "hull": "nucleate.screening.hull_step",
        "phonon": "nucleate.screening.phonon_step",
        "elastic": "nucleate.screening.elastic_step",
        "dft": "nucleate.screening.dft_step",
    }
)
"""Home of each step that looks at one crystal after the other. A module has ``Settings``, a frozen dataclass whose
fields are scalars with defaults (``--set phonon.NAME=VALUE``), and ``make_step(settings, resources) -> Step``."""


@dataclass(frozen=True, eq=False)
class StepResult:
    """What a step found out about one crystal.

    Attributes:
        crystal: the crystal that goes on: the given one, or the one it was relaxed to.
        status: ``passed`` goes on; ``left`` was judged and is out; ``failed`` could not be computed and is out.
        columns: values of the step's columns; what is missing is null. Numbers must be finite or None.
        reason: why it leaves, in words with numbers; empty for one that goes on.
        files: artefacts by relative name (``phonons.png``), written under ``details/ID/``.
    """

    crystal: Crystal
    status: Status = "passed"
    columns: Mapping[str, Value] = field(default_factory=dict)
    reason: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.status == "passed") != (self.reason == ""):
            raise ValueError(
                f"a step result has a reason exactly when the crystal leaves: {self.status!r} with {self.reason!r}"
            )


@dataclass(frozen=True, eq=False)
class StepItem:
    """One crystal as a step sees it.

    Attributes:
        candidate_id: its name, unique in the run.
        crystal: as the step before left it.
        properties: columns of the steps before by name, and what came along with the crystal as ``given.NAME``.
    """

    candidate_id: str
    crystal: Crystal
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Unchanged:
    """Stands for the crystal of a result that is the one that was sent: it need not be sent back."""


def lighter(result: StepResult, item: StepItem) -> StepResult:
    """The result, its crystal replaced where it is the item's own; ``whole`` puts it back."""
    stand_in: Any = Unchanged()
    return replace(result, crystal=stand_in) if result.crystal is item.crystal else result


def whole(result: StepResult, item: StepItem) -> StepResult:
    """What ``lighter`` was given."""
    return replace(result, crystal=item.crystal) if isinstance(result.crystal, Unchanged) else result


@dataclass(frozen=True)
class Resources:
    """What steps share; small and picklable, so that a worker makes its own potential and hull from it.

    Attributes:
        potential: name of the potential (``energetics.load_potential``).
        device: torch device of learned potentials.
        reference: path of the store whose crystals make the hull; None for the elements alone.
        energy_column: property that holds known energies (eV/atom) of candidates and reference; empty to compute them.
        cache: folder of energies that many crystals share (references of the hull).
        scratch: folder for files of programs that are run, such as a DFT code; each candidate makes its own in it.
    """

    potential: str = "chgnet"
    device: str = "cpu"
    reference: str | None = None
    energy_column: str = ""
    cache: str = ""
    scratch: str = ""


@runtime_checkable
class Step(Protocol):
    """One step of the funnel over single crystals.

    Steps are pickled and sent to workers: they hold settings, and load a potential on first use
    (``screening.potentials.shared_potential``). A step must not remember anything of one crystal for the next.

    Attributes:
        name: ``relax``, ``hull``, ``phonon``, ``elastic``, ``dft``.
        columns: what it adds to the table; names are unique over all steps.
        uses: names of properties that its result depends on, beside the crystal; part of the cache's key.
    """

    name: str
    columns: tuple[Column, ...]
    uses: tuple[str, ...]

    def digest(self) -> str:
        """Hash over everything but the crystal that decides the result; ``settings_digest`` makes one."""
        ...

    def run(self, candidate_id: str, crystal: Crystal, properties: Mapping[str, Any]) -> StepResult:
        """The verdict on one crystal; what it raises becomes the reason of this candidate alone."""
        ...


@runtime_checkable
class BatchStep(Step, Protocol):
    """A step that does many crystals together faster than one after the other.

    It may also say ``is_quick``: a verdict takes milliseconds, so that several may be sent together, and found again
    when their process dies; and ``by_chemical_system``: candidates of one chemical system should come together.

    Attributes:
        batch_size: candidates that are handed over together.
    """

    batch_size: int

    def run_many(self, items: Sequence[StepItem]) -> Iterator[tuple[int, StepResult]]:
        """(place in ``items``, verdict) as they are found; the rest is done singly when it raises, hangs or dies."""
        ...


def settings_digest(name: str, version: str, *parts: Any) -> str:
    """BLAKE2b-128 over a step's name, the version of its algorithm and everything else that decides its results.

    Args:
        name: of the step.
        version: changed when the algorithm finds something else.
        parts: settings as JSON-able values (``dataclasses.asdict``), the potential's identity, a store's hash.
    """
    text = json.dumps([name, version, *parts], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def step_settings(name: str) -> type:
    """The class of a step's settings.

    Raises:
        ConfigError: there is no such step, or what it needs is not installed.
    """
    return _module(name).Settings


def make_step(name: str, settings: Any, resources: Resources) -> Step:
    """The step of a name.

    Raises:
        ConfigError: there is no such step, or what it needs is not installed.
    """
    maker: Callable[[Any, Resources], Step] = _module(name).make_step
    return maker(settings, resources)


def _module(name: str) -> Any:
    if name not in STEP_MODULES:
        raise ConfigError(f"There is no step {name!r}; there are dedupe, {', '.join(STEP_MODULES)}")
    try:
        return import_module(STEP_MODULES[name])
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"The step {name} needs {error.name}, which is not installed: pip install nucleate[screen]"
        ) from error
