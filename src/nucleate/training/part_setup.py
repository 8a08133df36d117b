"""What a network is trained with: its task, noise, property head, validation and sample crystals."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import nn

from nucleate.crystal.batch import CrystalBatch
from nucleate.data.store import Store
from nucleate.errors import ConfigError
from nucleate.models.checkpoint import Checkpoint
from nucleate.models.graph import image_pairs
from nucleate.models.property_head import PropertyHead, PropertyHeadConfig
from nucleate.processes.choice import ProcessChoice
from nucleate.processes.penalties import REPULSION_RADIUS, energy_function
from nucleate.training.config import TrainingConfig
from nucleate.training.crystal_stream import (
    SizeLimits,
    SourcedCrystals,
    fitting,
    in_batches,
    load_crystals,
)
from nucleate.training.element_exchange import SMALL_DATA, SMALL_DATA_SHARE
from nucleate.training.geometry_task import GeometryTask, PenaltyWeights
from nucleate.training.tasks import Task, TemplateTask


def size_limits(config: TrainingConfig) -> SizeLimits:
    """How large crystals and batches may be."""
    return SizeLimits(
        config.batch_size,
        config.max_edges,
        config.max_batch_atoms,
        config.max_orbits,
        config.max_atoms,
        config.geometry.radius,
    )


def make_template_task(config: TrainingConfig, num_crystals: int, beside: nn.ModuleDict) -> Task:
    """The template task, which learns nothing beside its network; with little data, elements are exchanged."""
    share = config.element_exchange
    if share is None:
        share = SMALL_DATA_SHARE if num_crystals <= SMALL_DATA else 0.0
    return TemplateTask(share, config.composition_exchange)


def make_geometry_task(config: TrainingConfig, choice: ProcessChoice, beside: nn.ModuleDict) -> Task:
    """The geometry task with the head that is learned beside the network (or its average)."""
    return GeometryTask(
        choice,
        source_dropout=config.source_dropout,
        same_time=config.same_time,
        time_power=config.time_power,
        lattice_weight=config.lattice_weight,
        penalties=PenaltyWeights(
            config.distance_weight,
            config.volume_weight,
            config.density_weight,
            config.energy_weight,
            config.energy,
            config.bond_valence_weight,
        ),
        element_share=config.element_share,
        element_weight=config.element_weight,
        head=beside["head"] if "head" in beside else None,  # type: ignore[arg-type]  # noqa: SIM401  a ModuleDict has no get
        property_weight=config.property_weight,
    )


def process_choice(config: TrainingConfig, start: Checkpoint, crystals: CrystalBatch) -> ProcessChoice:
    """The noise of the initial weights if there are any, else one as wide as the training crystals."""
    solver = config.sampling_solver
    if start.geometry is None or start.lattice_mean is None or start.lattice_std is None:
        return ProcessChoice.fit(crystals, kind=config.process, schedule=config.schedule, solver=solver)
    settings = {"kind": config.process, "schedule": config.schedule, "solver": solver}
    return ProcessChoice.from_state(
        settings, start.process_tables, lattice_mean=start.lattice_mean, lattice_std=start.lattice_std
    )


def accelerator_of(config: TrainingConfig) -> str:
    """What to train on, by Lightning's name. Its own auto and gpu may be Apple's mps, on which training cannot be.

    Raises:
        ConfigError: a GPU is asked for where torch finds none that it could use.
    """
    name = config.accelerator
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name in ("gpu", "cuda") and not torch.cuda.is_available():
        raise ConfigError(
            f"accelerator: {name} is asked for, but torch finds no CUDA device: use auto or cpu"
        )
    return "cuda" if name == "gpu" else name


def check_energy(config: TrainingConfig) -> None:
    """Whether the potential of the energy penalty can be loaded, where it has a weight.

    Raises:
        ConfigError: it cannot.
    """
    if config.energy_weight:
        energy_function(config.energy, partial(image_pairs, radius=REPULSION_RADIUS))


def check_properties(store: Store, names: Sequence[str]) -> None:
    """Whether the store has these properties as numbers.

    Raises:
        ConfigError: it lacks one.
    """
    known = store.manifest.properties
    numeric = [name for name, column in known.items() if column.kind in ("flag", "integer", "number")]
    for name in names:
        if name not in numeric:
            raise ConfigError(
                f"The store has no numeric property {name!r}; it has {', '.join(sorted(numeric)) or 'none'}"
            )


def property_head(
    config: TrainingConfig, start: Checkpoint, store: Store, first: SourcedCrystals
) -> PropertyHead:
    """The head of the initial weights if it reads the same properties, else a new one with the data's statistics.

    A new one too where other sizes are asked for.

    Raises:
        ConfigError: the head reads a property in another unit than the store has it in, or there is nothing to learn.
    """
    known = store.manifest.properties
    there = None if start.properties is None else start.properties.config
    sizes = {"hidden": config.property_hidden, "layers": config.property_layers}
    if there is not None and there.names == config.properties and _as_asked(there, sizes, config):
        for name, unit in zip(there.names, there.units):
            own = known[name].unit
            if unit and own and unit != own:
                raise ConfigError(
                    f"The initial weights read the property {name!r} in {unit}, the store has it in {own}: convert one "
                    "of them, or train without --init"
                )
        assert start.properties is not None
        return start.properties
    assert first.labels is not None
    means, stds = [], []
    for name, values in zip(config.properties, first.labels.double().T):
        values = values[torch.isfinite(values)]
        if len(values) < 2:
            raise ConfigError(
                f"The property {name!r} has {len(values)} values in the split train; leave it out"
            )
        means.append(float(values.mean()))
        stds.append(max(float(values.std()), 1e-6))
    units = tuple(known[name].unit or "" for name in config.properties)
    return PropertyHead(
        PropertyHeadConfig(
            config.geometry.scalars,
            config.properties,
            units,
            tuple(means),
            tuple(stds),
            **sizes,
        )
    )


def _as_asked(there: PropertyHeadConfig, sizes: dict[str, int], config: TrainingConfig) -> bool:
    """Whether a head has the sizes that were asked for; those that were not do not matter."""
    return all(
        getattr(there, name) == size for name, size in sizes.items() if config.asks_for(f"property_{name}")
    )


def sample_content(batches: list[SourcedCrystals], config: TrainingConfig) -> SourcedCrystals | None:
    """The validation crystals whose templates are sampled while training."""
    if not batches or not config.sample_crystals:
        return None
    return batches[0].take(torch.arange(min(len(batches[0]), config.sample_crystals)))


def validation_batches(
    store: Store,
    tokens: dict[str, int],
    limits: SizeLimits,
    config: TrainingConfig,
    properties: tuple[str, ...],
) -> list[SourcedCrystals]:
    """Validation crystals that fit, a seeded choice of them where there are many, in batches."""
    if not store.manifest.split_counts.get("val"):
        return []
    val = store.split("val")
    if len(val) > config.val_crystals:
        chosen = np.random.default_rng(config.seed).permutation(len(val))[: config.val_crystals]
        val = val.select(chosen)
    pool = fitting(load_crystals(val, tokens, properties), limits)
    return in_batches(pool, limits) if len(pool) else []
