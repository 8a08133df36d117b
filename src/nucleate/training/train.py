"""``train``: a store in, a folder with weights out."""

from __future__ import annotations

import copy
import logging
import math
import os
import platform
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import nn

from nucleate.data.store import Store
from nucleate.models.checkpoint import Checkpoint, History, load_checkpoint, save_checkpoint
from nucleate.models.growth import grown, grown_template
from nucleate.models.orbit_transformer import OrbitTransformer, OrbitTransformerConfig
from nucleate.models.template_transformer import TemplateTransformer
from nucleate.training.config import TrainingConfig
from nucleate.training.crystal_stream import CrystalStream, num_too_large, source_names
from nucleate.training.geometry_task import GeometryTask
from nucleate.training.initial_weights import started_from, weights_file
from nucleate.training.loaders import TrainingLoader, ValidationLoader
from nucleate.training.network_module import NetworkModule
from nucleate.training.non_finite import NonFinite
from nucleate.training.part_setup import (
    accelerator_of,
    check_energy,
    check_properties,
    make_geometry_task,
    make_template_task,
    process_choice,
    property_head,
    sample_content,
    size_limits,
    validation_batches,
)
from nucleate.training.precision import precision_for
from nucleate.training.property_task import FrozenFeatures, PropertyTask, labelled
from nucleate.training.recorder import RunRecorder, TrainingProgress
from nucleate.training.run_folder import RunFolder
from nucleate.training.sampling_weights import SamplingWeights
from nucleate.training.tasks import Task


@dataclass(frozen=True)
class TrainingReport:
    """What a run came to.

    Attributes:
        weights: the file of averaged weights.
        costs: steps, minutes and crystals of each part trained.
        validation: validation losses of each part's weights.
        num_left_out: training crystals too large for a batch.
        num_non_finite: batches with losses or gradients that were not finite.
    """

    weights: Path
    costs: dict[str, dict[str, Any]]
    validation: dict[str, dict[str, float]]
    num_left_out: int
    num_non_finite: int


def train(
    store_path: str | os.PathLike[str],
    config: TrainingConfig,
    *,
    out: str | os.PathLike[str],
    init: str | os.PathLike[str] | None = None,
    on_progress: Callable[[TrainingProgress], None] | None = None,
) -> TrainingReport:
    """Train the networks of a configuration on the split ``train`` of a store; a stopped run goes on.

    Args:
        store_path: folder or URL of an encoded store; its split ``val`` is validated on if there is one.
        config: every choice.
        out: folder of the run; see ``RunFolder``.
        init: file of weights to start from, or ``"shipped"`` for those that come with the package (a file of that name
            is ``"./shipped"``); a part that is not trained is kept as it is there.
        on_progress: told every ``log_every`` steps.

    Raises:
        StoreError, ConfigError, CheckpointError, TrainingError: something does not fit, and what.
        KeyboardInterrupt: Ctrl-C; everything done is kept.
    """
    store = Store.open(store_path)
    folder = RunFolder(out)
    weights = None if init is None else weights_file(init)
    start = Checkpoint() if weights is None else load_checkpoint(weights)
    config = started_from(config, start)
    accelerator_of(config)
    check_energy(config)
    if is_main_process():
        folder.begin(
            config,
            data_hash=store.content_hash,
            store=store.location,
            init=weights,
        )
    # A run that goes on keeps the part it has already finished.
    made = load_checkpoint(folder.weights) if folder.weights.exists() else start
    names = _vocabulary(store, config, start)
    made = made.replace(sources=names)
    costs: dict[str, dict[str, Any]] = {}
    validation: dict[str, dict[str, float]] = {}
    left_out = non_finite = 0
    for part in config.parts():
        if folder.finished(part, config):
            costs[part] = (folder.state() or {})["finished"][part]
            continue
        run = _PartRun(part, store, config, folder, names, start, made)
        made = run.fit(on_progress)
        costs[part], validation[part] = run.cost(), run.kept_validation(made)
        left_out, non_finite = run.num_left_out, non_finite + run.module.num_non_finite
        if is_main_process():
            folder.finish(part, costs[part])
        if run.module.stop_asked and part != config.parts()[-1]:
            raise folder.interruption()
    return TrainingReport(folder.weights, costs, validation, left_out, non_finite)


def is_main_process() -> bool:
    """Whether this is the process of a distributed run that writes and prints."""
    return getattr(rank_zero_only, "rank", 0) == 0


class _PartRun:
    """The training of one network."""

    def __init__(
        self,
        part: str,
        store: Store,
        config: TrainingConfig,
        folder: RunFolder,
        names: tuple[str, ...],
        start: Checkpoint,
        made: Checkpoint,
    ) -> None:
        self.part, self.store, self.config, self.folder, self.made = part, store, config, folder, made
        self.precision = precision_for(config.precision, accelerator_of(config))
        tokens = {name: k for k, name in enumerate(names, start=1)}
        self.limits = size_limits(config)
        training = store.split("train")
        properties = config.properties if part in ("geometry", "properties") else ()
        check_properties(store, properties)
        if part == "properties":
            training = labelled(training, properties)
        weights = SamplingWeights.parse(config.sampling_weights) if config.sampling_weights else None
        if weights is not None:
            weights.check_sources(names)
        self.stream = CrystalStream(
            training,
            tokens=tokens,
            limits=self.limits,
            seed=config.seed,
            properties=properties,
            weights=weights,
        )
        first = self.stream.load_window(0, 0)
        self.num_left_out = num_too_large(training, self.limits)
        self.val_batches = validation_batches(store, tokens, self.limits, config, properties)
        torch.manual_seed(config.seed)
        network: nn.Module | None = getattr(start, part)
        beside, tables = nn.ModuleDict(), nn.ModuleDict()
        make = partial(make_template_task, config, len(training))
        if part == "properties":
            assert start.geometry is not None
            network = copy.deepcopy(property_head(config, start, store, first))
            task = PropertyTask(FrozenFeatures(start.geometry, len(store.whole())))
            make = partial(_same_task, task)
        elif part != "template":
            sizes: OrbitTransformerConfig = getattr(config, part)
            network = (
                OrbitTransformer(sizes)
                if not isinstance(network, OrbitTransformer)
                else grown(network, sizes, seed=config.seed)
            )
            choice = process_choice(config, start, first.crystals)
            tables["loss"], tables["lattice_error"] = choice.loss_table, choice.lattice_error
            if properties:
                beside["head"] = property_head(config, start, store, first)
            make = partial(make_geometry_task, config, choice)
        else:
            network = (
                TemplateTransformer(config.template)
                if not isinstance(network, TemplateTransformer)
                else grown_template(network, config.template, seed=config.seed)
            )
        self.module = NetworkModule(
            network,
            make,
            config,
            part=part,
            beside=beside,
            tables=tables,
            sample_content=sample_content(self.val_batches, config) if part in ("geometry", "weak") else None,
            report_non_finite=self._report,
        )
        self.trainer: pl.Trainer | None = None

    def fit(self, on_progress: Callable[[TrainingProgress], None] | None) -> Checkpoint:
        """Train until the budget is spent; the checkpoint with this part in it."""
        config, has_val = self.config, bool(self.val_batches)
        # TensorBoard is looked at where it is installed; the numbers are in metrics.csv either way.
        has_board = find_spec("tensorboard") is not None or find_spec("tensorboardX") is not None
        board = (
            TensorBoardLogger(self.folder.path, name="tensorboard", version=self.part) if has_board else None
        )
        recorder = RunRecorder(
            self.folder,
            write_weights=self._write_weights,
            has_validation=has_val,
            on_progress=on_progress,
            tensorboard=board,
        )
        distributed = config.devices * config.nodes > 1
        with _quiet():
            self.trainer = trainer = pl.Trainer(
                accelerator=accelerator_of(config),
                devices=config.devices,
                num_nodes=config.nodes,
                strategy="ddp_find_unused_parameters_true" if distributed else "auto",
                precision=self.precision,
                max_epochs=-1,
                accumulate_grad_batches=config.accumulate,
                gradient_clip_val=config.gradient_clip,
                val_check_interval=config.validate_every * config.accumulate,
                check_val_every_n_epoch=None,
                num_sanity_val_steps=0,
                limit_val_batches=None if has_val else 0,
                logger=False,
                callbacks=[recorder],
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                use_distributed_sampler=False,
            )
            resume = self.folder.checkpoint(self.part)
            trainer.fit(
                self.module,
                train_dataloaders=TrainingLoader(self.stream, self.module, trainer),
                val_dataloaders=ValidationLoader(self.val_batches, trainer) if has_val else None,
                ckpt_path=resume if resume.exists() else None,
                weights_only=True,
            )
            if is_main_process() and not self._has_best():
                save_checkpoint(self.folder.weights, self._checkpoint())
        if self.module.interrupted:
            trainer.strategy.barrier()  # no rank ends before everything is written
            raise self.folder.interruption()
        if is_main_process() and self._has_best():
            return load_checkpoint(self.folder.weights)
        return self._checkpoint()

    def kept_validation(self, made: Checkpoint) -> dict[str, float]:
        """Validation losses of the weights that stayed; nothing without validation."""
        prefix = f"{self.part}_val_"
        if not self.module.validation_losses:
            return {}
        kept = {k.removeprefix(prefix): v for k, v in made.history.metrics.items() if k.startswith(prefix)}
        return {k: math.nan if v is None else v for k, v in kept.items()}  # null in the file

    def cost(self) -> dict[str, Any]:
        """Steps, minutes and what they were spent on."""
        parameters = sum(p.numel() for p in self.module.network.parameters())
        return {
            "steps": self.module.global_step,
            "minutes": round(self.module.seconds / 60, 3),
            "parameters": parameters,
            "train_crystals": len(self.stream.store),
            "data_hash": self.store.content_hash,
            "batch_size": self.config.batch_size * self.config.accumulate,
            "processes": self.config.devices * self.config.nodes,
            "machine": platform.machine(),
            "precision": self.precision,
        }

    def _report(self, found: NonFinite) -> None:
        if not is_main_process():
            return
        whole = self.store.whole()
        ids = [whole[row].id for row in found.rows]
        self.folder.add_non_finite(self.part, found.step, ids, found.what)
        named = ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
        whose = f"of {named} is not finite" if ids else "is not finite, though that of each crystal alone is"
        warnings.warn(f"step {found.step}: the {found.what} {whose}; left out of this step", stacklevel=2)

    def _write_weights(self) -> None:
        """Of the validation just made, whose row is not in the table yet, if it is the best; else of now."""
        loss = self.module.validation_losses.get("loss")
        before = min(self._earlier_losses(), default=math.inf)
        if self.config.keep == "last" or loss is None or _comparable(loss) <= before:
            save_checkpoint(self.folder.weights, self._checkpoint())

    def _has_best(self) -> bool:
        """Whether the best weights are to stay and some were validated."""
        return self.config.keep == "best" and bool(self._earlier_losses())

    def _earlier_losses(self) -> list[float]:
        """Of all validations of the part in the table, those of a run that was stopped and went on included."""
        rows = self.folder.read_metrics()
        mine = [r for r in rows if (r["part"], r["split"], r["quantity"]) == (self.part, "val", "loss")]
        return [_comparable(float(r["value"])) for r in mine]

    def _checkpoint(self) -> Checkpoint:
        made, module = self.made, self.module
        history = made.history
        licences = self.store.manifest.source.get("licences") or []
        attribution = {*history.attribution, *(f"data: {licence}" for licence in licences)}
        prefix = f"{self.part}_val_"  # what was measured of the part as it was before is no longer true of it
        metrics = {k: v for k, v in history.metrics.items() if not k.startswith(prefix)}
        metrics |= {prefix + k: v for k, v in module.validation_losses.items()}
        # A head is an addition: what the networks were trained on stays what is said of the weights.
        before = history.data_hash if self.part == "properties" else None
        history = History(
            data_hash=before or self.store.content_hash,
            seed=self.config.seed,
            training={**history.training, self.part: {**self.cost(), "settings": self.config.to_flat()}},
            metrics=metrics,
            initial_weights=(self.folder.state() or {}).get("init"),
            attribution=tuple(sorted(attribution)),
        )
        changes: dict[str, Any] = {self.part: module.averaged_network(), "history": history}
        if self.part == "geometry":
            assert isinstance(module.task, GeometryTask)
            choice = module.task.choice
            lattice = choice.process.lattice
            changes |= {"lattice_mean": lattice.mean, "lattice_std": lattice.std}
            changes |= {"process": choice.settings(), "process_tables": choice.tables()}
            changes["properties"] = None  # a head reads the network it was trained with, and no other
        if "head" in module.beside:
            changes["properties"] = copy.deepcopy(module.averages_beside["head"]).cpu().eval()
        return made.replace(**changes)


def _same_task(task: Task, beside: nn.ModuleDict) -> Task:
    """A task that nothing is learned beside."""
    return task


def _comparable(loss: float) -> float:
    """A loss that is not a number is worse than any other."""
    return math.inf if math.isnan(loss) else loss


def _vocabulary(store: Store, config: TrainingConfig, start: Checkpoint) -> tuple[str, ...]:
    """Names of the data source tokens: those of the initial weights first, then the store's."""
    names = list(start.sources)
    if not config.networks():
        return tuple(names)  # a head reads crystals of no named source
    names += [name for name in source_names(store) if name not in names]
    room = min(getattr(config, part).num_sources for part in config.networks()) - 1
    if len(names) > room:
        warnings.warn(
            f"{len(names)} data sources, but the network tells {room} apart; {', '.join(names[room:])} count as "
            "unknown (raise geometry_num_sources and template_num_sources to change that)",
            stacklevel=3,
        )
    return tuple(names[:room])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's advice on loaders and loggers, which does not apply here."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for message in (
            ".*does not have many workers.*",
            ".*treespec, LeafSpec.*",
            ".*Found .* module.* in eval mode.*",
            ".*The `srun` command is available.*",
            ".*GPU available but not used.*",
            ".*Checkpoint directory .* exists and is not empty.*",
            ".*You're resuming from a checkpoint that ended before the epoch ended.*",
            ".*isinstance.treespec.*",
            ".*Trying to infer the `batch_size`.*",
            ".*Total length of `.*` across ranks is zero.*",
        ):
            warnings.filterwarnings("ignore", message=message)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels):
                logger.setLevel(level)
