"""The configuration of a training run: one typed dataclass, one flat YAML file."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from nucleate.errors import ConfigError
from nucleate.models.orbit_transformer import OrbitTransformerConfig
from nucleate.models.template_transformer import TemplateTransformerConfig
from nucleate.processes.choice import ProcessKind, default_solver
from nucleate.processes.schedule import ScheduleName
from nucleate.processes.solver import SolverName
from nucleate.training.optimiser import OptimiserName
from nucleate.training.precision import PrecisionSetting
from nucleate.training.sampling_weights import SamplingWeights

Part = Literal["geometry", "template", "both", "weak", "properties"]
WEAK = OrbitTransformerConfig(scalars=64, vectors=8, hidden=32, layers=3, heads=4, num_basis=16)
Compile = Literal["auto", "on", "off"]
Keep = Literal["best", "last"]


@dataclass(frozen=True)
class TrainingConfig:
    """Every choice of a training run.

    Attributes:
        part: which network to train; both are trained one after the other. weak adds to initial weights the small
            geometry network that autoguidance leads away from; properties adds a head that reads ``properties`` off the
            geometry network of initial weights, which stays as it is.
        seed: of weights, order, noise and conditions.
        minutes: wall-clock budget of the run, resumed time included.
        max_steps: budget of optimiser steps of each part.
        template_share: share of ``minutes`` that the template network gets when both are trained.
        batch_size: most crystals in a batch.
        max_edges: most edges of the neighbour graph in a batch, estimated.
        max_batch_atoms: most atoms (primitive cells) in a batch.
        max_orbits: crystals with more orbits are left out.
        max_atoms: crystals with more atoms per primitive cell are left out.
        sampling_weights: how often crystals come in an epoch, by source (``mp_20=2``) and by free coordinates
            (``free_coords:3..8=1.5``); by default each once.
        accumulate: batches whose gradients are added before a step.
        optimiser: AdamW, or Muon for the weight matrices and AdamW for the rest.
        learning_rate: after warm-up.
        final_learning_rate: at the end of the cosine, as a share of ``learning_rate``.
        warmup_steps: steps over which the learning rate grows; at most a tenth of the budget.
        weight_decay: decoupled from the gradient.
        gradient_clip: largest norm of the gradient.
        ema_decay: of the exponential moving average of the weights, reached gradually.
        precision: bfloat16 autocast (geometry keeps float32), or float32 throughout; auto is bfloat16 where the device
            multiplies in it.
        compile: the layers with torch.compile; auto does so where a compiler is installed and the budget is long.
        process: noise of lattices and coordinates: flow matching or diffusion.
        schedule: noise level at each time, in training and sampling; learned spreads times by the loss.
        solver: what crystals are sampled with; by default ddim for flow and multistep for diffusion.
        time_power: times are drawn as u^p, u uniform: above 1 there are more of the small ones, where most is learned.
        curriculum: simple crystals first and noise levels growing.
        curriculum_share: share of the budget over which they grow.
        source_dropout: how often the source token of a crystal is hidden while training geometry.
        same_time: how often coordinates and lattice share one noise level.
        lattice_weight: of the lattice loss beside the coordinate loss.
        distance_weight: of the penalty on atoms nearer than real ones; 0 leaves it out.
        volume_weight: of the penalty on volumes far from those of the composition; 0 leaves it out.
        density_weight: of the penalty on densities no solid has; 0 leaves it out.
        bond_valence_weight: of the penalty on bond valence sums far from the oxidation states; 0 leaves it out.
        energy_weight: of the penalty on energies per atom of a potential; 0 leaves it out.
        energy: that potential: ``repulsion`` (Born-Mayer) or ``module:function`` of your own.
        element_exchange: share of templates whose elements are exchanged for similar ones while the template network
            is trained, so that few crystals are not learned by heart; by default 0.7 up to 100 crystals, then none.
        composition_exchange: share of compositions with elements exchanged in the same way where the space group and
            the number of formula units are learned; positions and elements are learned from the real ones.
        element_share: share of crystals whose elements are hidden while training geometry; 0 hides none.
        element_weight: of the loss of hidden elements.
        properties: names of numeric properties of the store to be read off the geometry network.
        property_weight: of their loss beside that of the geometry.
        property_hidden: width of the layers of the head that reads them.
        property_layers: how many of these.
        sample_crystals: crystals sampled at each validation, on validation templates; 0 samples none.
        sample_steps: passes of the network for that.
        validate_every: steps between validations; weights are written there.
        val_crystals: most crystals in the validation set.
        keep: which weights stay, those of the validation with the least loss (``best``) or the last ones; without
            validation crystals the last.
        log_every: steps between rows of metrics.csv.
        accelerator: what to train on, by Lightning's names; auto is cuda where there is such a device, else cpu.
        devices: processes per machine, one per device.
        nodes: machines.
        geometry: sizes of the geometry network; in YAML ``geometry_layers`` and so on.
        weak: sizes of the weak one; in YAML ``weak_layers`` and so on.
        template: sizes of the template network; in YAML ``template_layers`` and so on.
        given: keys that were asked for, the others are defaults; None where that is not known. No setting itself.
    """

    part: Part = "both"
    seed: int = 0
    minutes: float | None = None
    max_steps: int | None = None
    template_share: float = 0.3
    batch_size: int = 128
    max_edges: int = 40_000
    max_batch_atoms: int = 6_000
    max_orbits: int = 24
    max_atoms: int = 60
    sampling_weights: tuple[str, ...] = ()
    accumulate: int = 1
    optimiser: OptimiserName = "adamw"
    learning_rate: float = 1e-3
    final_learning_rate: float = 0.02
    warmup_steps: int = 300
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    ema_decay: float = 0.999
    precision: PrecisionSetting = "auto"
    compile: Compile = "auto"
    process: ProcessKind = "flow"
    schedule: ScheduleName = "linear"
    solver: SolverName | None = None
    time_power: float = 1.7
    curriculum: bool = False
    curriculum_share: float = 0.3
    source_dropout: float = 0.1
    same_time: float = 0.7
    lattice_weight: float = 0.3
    distance_weight: float = 0.0
    volume_weight: float = 0.0
    density_weight: float = 0.0
    bond_valence_weight: float = 0.0
    energy_weight: float = 0.0
    energy: str = "repulsion"
    element_exchange: float | None = None
    composition_exchange: float = 0.5
    element_share: float = 0.0
    element_weight: float = 0.1
    properties: tuple[str, ...] = ()
    property_weight: float = 0.1
    property_hidden: int = 384
    property_layers: int = 2
    sample_crystals: int = 32
    sample_steps: int = 20
    validate_every: int = 500
    val_crystals: int = 512
    keep: Keep = "best"
    log_every: int = 50
    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    geometry: OrbitTransformerConfig = field(default_factory=OrbitTransformerConfig)
    weak: OrbitTransformerConfig = field(default_factory=lambda: WEAK)
    template: TemplateTransformerConfig = field(default_factory=TemplateTransformerConfig)
    given: frozenset[str] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.minutes is None and self.max_steps is None:
            raise ConfigError("A training run needs a budget: give minutes or max_steps")
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"{name} must be greater than 0, got {value}")
        for name in _NOT_NEGATIVE:
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in _SHARES:
            if getattr(self, name) is not None and not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must be between 0 and 1, got {getattr(self, name)}")
        if self.part == "both" and self.minutes is not None and self.template_share in (0, 1):
            raise ConfigError(
                "template_share must lie between 0 and 1 where both networks share the minutes, got "
                f"{self.template_share}: name the one to train with part"
            )
        if self.accelerator == "mps":
            raise ConfigError(
                "accelerator: mps has no 64-bit floats, which noise tables and charge balance need: use cpu or cuda"
            )
        if self.part == "properties" and not self.properties:
            raise ConfigError(
                "A property head needs to know what to read: name numeric properties of the store with properties: "
                "[band_gap], or --properties band_gap"
            )
        SamplingWeights.parse(self.sampling_weights)

    @property
    def sampling_solver(self) -> str:
        """The solver asked for, or the process's own."""
        return self.solver or default_solver(self.process)

    def asks_for(self, key: str) -> bool:
        """Whether a flat key was given; where that is not known, whether its value differs from the default."""
        if self.given is not None:
            return key in self.given
        return self.to_flat()[key] != TrainingConfig(max_steps=1).to_flat()[key]

    def parts(self) -> tuple[str, ...]:
        """What to train, in order."""
        return ("geometry", "template") if self.part == "both" else (self.part,)

    def networks(self) -> tuple[str, ...]:
        """Those of ``parts`` that have sizes of their own."""
        return tuple(part for part in self.parts() if part != "properties")

    def minutes_of(self, part: str) -> float | None:
        """Share of ``minutes`` for a part."""
        if self.minutes is None or self.part != "both":
            return self.minutes
        return self.minutes * (self.template_share if part == "template" else 1 - self.template_share)

    def to_flat(self) -> dict[str, Any]:
        """Keys and values as they stand in YAML."""
        flat: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name == "given":
                continue
            if is_dataclass(value):
                flat |= {f"{f.name}_{g.name}": getattr(value, g.name) for g in fields(value)}
            else:
                flat[f.name] = list(value) if isinstance(value, tuple) else value
        return flat

    @classmethod
    def from_flat(cls, values: Mapping[str, Any], *, where: str = "the configuration") -> TrainingConfig:
        """The configuration with these keys set; the rest keeps its defaults.

        Raises:
            ConfigError: an unknown key (the nearest known one is named) or a value of another type.
        """
        types = _flat_types()
        own: dict[str, Any] = {}
        nested: dict[str, dict[str, Any]] = {}
        for key, value in values.items():
            if key not in types:
                close = difflib.get_close_matches(str(key), types, n=1, cutoff=0.0)
                raise ConfigError(
                    f"{where} has the unknown key {key!r}; the nearest known one is {close[0]!r}"
                )
            group, name, kind = types[key]
            typed = _typed(key, value, kind, where)
            (own if group is None else nested.setdefault(group, {}))[name] = typed
        for group, changes in nested.items():
            try:
                own[group] = replace(_default(group), **changes)
            except ConfigError as error:
                raise ConfigError(f"There can be no {group} network of these sizes: {error}") from error
        return cls(**own, given=frozenset(values))


_POSITIVE = (
    "minutes",
    "max_steps",
    "batch_size",
    "max_edges",
    "max_batch_atoms",
    "max_orbits",
    "max_atoms",
    "accumulate",
    "learning_rate",
    "gradient_clip",
    "validate_every",
    "val_crystals",
    "log_every",
    "time_power",
    "sample_steps",
    "devices",
    "nodes",
    "property_hidden",
    "property_layers",
)
_NOT_NEGATIVE = (
    "seed",
    "warmup_steps",
    "weight_decay",
    "lattice_weight",
    "distance_weight",
    "volume_weight",
    "density_weight",
    "bond_valence_weight",
    "energy_weight",
    "element_weight",
    "property_weight",
    "sample_crystals",
)
_SHARES = (
    "template_share",
    "final_learning_rate",
    "ema_decay",
    "curriculum_share",
    "source_dropout",
    "same_time",
    "element_exchange",
    "composition_exchange",
    "element_share",
)


def read_config(path: str | os.PathLike[str], **changes: Any) -> TrainingConfig:
    """The configuration of a flat YAML file, with some keys exchanged.

    Raises:
        ConfigError: not a flat YAML mapping, an unknown key or a value of another type.
    """
    where = os.fspath(path)
    try:
        with open(where, encoding="utf-8") as stream:
            values = yaml.safe_load(stream) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{where} holds a {type(values).__name__}, expected lines of `key: value`")
    return TrainingConfig.from_flat({**values, **changes}, where=where)


def config_yaml(config: TrainingConfig) -> str:
    """The configuration as flat YAML."""
    return yaml.safe_dump(config.to_flat(), sort_keys=False)


def _default(group: str) -> Any:
    found: Field[Any] = next(f for f in fields(TrainingConfig) if f.name == group)
    assert found.default_factory is not MISSING
    return found.default_factory()


def _flat_types() -> dict[str, tuple[str | None, str, Any]]:
    """(nested dataclass or None, field, type) of every flat key."""
    types: dict[str, tuple[str | None, str, Any]] = {}
    for name, kind in get_type_hints(TrainingConfig).items():
        if name == "given":
            continue
        if isinstance(kind, type) and is_dataclass(kind):
            types |= {f"{name}_{inner}": (name, inner, k) for inner, k in get_type_hints(kind).items()}
        else:
            types[name] = (None, name, kind)
    return types


def _typed(key: str, value: Any, kind: Any, where: str) -> Any:
    choices = get_args(kind)
    literals = [c for c in choices if get_origin(c) is Literal]
    if literals and value is None:  # Literal[...] | None
        return None
    if literals:
        kind, choices = literals[0], get_args(literals[0])
    if get_origin(kind) is Literal:
        if isinstance(value, bool) and {"on", "off"} <= set(choices):  # YAML reads on and off as booleans
            value = "on" if value else "off"
        if value not in choices:
            raise ConfigError(f"{key} in {where} is one of {', '.join(map(str, choices))}, got {value!r}")
        return value
    if get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
            raise ConfigError(f"{key} in {where} must be a list of names, got {value!r}")
        return tuple(value)
    allowed = choices if isinstance(kind, UnionType) else (kind,)
    if value is None and type(None) in allowed:
        return None
    if bool in allowed and isinstance(value, bool):
        return value
    if float in allowed and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if int in allowed and isinstance(value, int) and not isinstance(value, bool):
        return value
    if str in allowed and isinstance(value, str):
        return value
    if float in allowed and isinstance(value, str):  # YAML reads 1e-3 as text
        try:
            return float(value)
        except ValueError:
            pass
    names = " or ".join(k.__name__ for k in allowed if k is not type(None))
    raise ConfigError(f"{key} in {where} must be of type {names}, got {value!r}")
