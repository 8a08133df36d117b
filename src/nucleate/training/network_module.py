"""The thin Lightning module: one network, one task, an averaged copy, a budget, and a guard against NaN."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from nucleate.errors import TrainingError
from nucleate.training.compiling import compile_layers, compiles
from nucleate.training.config import TrainingConfig
from nucleate.training.crystal_stream import Cursor, SourcedCrystals, TrainingBatch, ValidationBatch
from nucleate.training.losses import Losses
from nucleate.training.non_finite import NonFinite, found_by_all
from nucleate.training.optimiser import make_optimiser
from nucleate.training.tasks import Task

MOST_NON_FINITE = 50
"""Batches with NaN or infinite losses or gradients after which training gives up."""

TaskMaker = Callable[[nn.ModuleDict], Task]
"""What is learned beside the network -> the task that uses it."""

NonFiniteReport = Callable[[NonFinite], None]
"""What is not finite is told to this, on every rank."""


@dataclass(frozen=True)
class Budget:
    """How long a part trains: by wall clock, by optimiser steps, or whichever ends first."""

    minutes: float | None
    max_steps: int | None

    def fraction(self, step: int, seconds: float) -> float:
        """Share of the budget that is spent, 1 when it is over."""
        by_time = seconds / (60 * self.minutes) if self.minutes is not None else 0.0
        by_steps = step / self.max_steps if self.max_steps is not None else 0.0
        return min(1.0, max(by_time, by_steps))


WARMUP_SHARE = 0.1
"""Most of the budget that the warm-up may take: a training of a few minutes has fewer steps than a long warm-up."""


def cosine_with_warmup(step: int, fraction: float, *, warmup_steps: int, final: float) -> float:
    """Factor on the learning rate: linear to 1 over the warm-up, a cosine over the budget down to ``final``.

    The warm-up ends after ``warmup_steps`` or a tenth of the budget, whichever comes first.
    """
    cosine = final + (1 - final) * 0.5 * (1 + math.cos(math.pi * fraction))
    warm = max((step + 1) / max(1, warmup_steps), fraction / WARMUP_SHARE)
    return min(1.0, warm) * cosine


class NetworkModule(pl.LightningModule):
    """Trains one network on one task; ``beside`` holds what is learned with it (heads), ``tables`` what is counted.

    Every random number of a step follows from (seed, part, rank, number of the batch), so a resumed run goes
    on exactly as if it had not stopped.
    """

    def __init__(
        self,
        network: nn.Module,
        make_task: TaskMaker,
        config: TrainingConfig,
        *,
        part: str,
        beside: nn.ModuleDict | None = None,
        tables: nn.ModuleDict | None = None,
        sample_content: SourcedCrystals | None = None,
        report_non_finite: NonFiniteReport = lambda *_: None,
    ) -> None:
        super().__init__()
        self.network = network
        self.average = AveragedModel(network, multi_avg_fn=_moving_average(config.ema_decay))
        self.average.requires_grad_(False)
        self.beside = beside if beside is not None else nn.ModuleDict()
        self.tables = tables if tables is not None else nn.ModuleDict()
        self.average_beside = AveragedModel(self.beside, multi_avg_fn=_moving_average(config.ema_decay))
        self.average_beside.requires_grad_(False)
        self.sample_content = sample_content
        self.sample_figures: dict[str, float] = {}
        self.task, self.validation_task = make_task(self.beside), make_task(self.averages_beside)
        self.config, self.part = config, part
        self.budget = Budget(config.minutes_of(part), config.max_steps)
        self.report_non_finite = report_non_finite
        self.cursor = Cursor()
        self.batches_done = 0
        self.seconds_before = 0.0
        self.num_non_finite = 0
        self.stop_asked = False
        self.interrupted = False
        self.validation_losses: dict[str, float] = {}
        self.train_losses: dict[str, Tensor] = {}
        self._sums: dict[str, float] = {}
        self._began = time.monotonic()
        self._since_step: list[tuple[Any, SourcedCrystals]] = []
        self._non_finite: list[NonFinite] = []
        self._fraction = 0.0

    @property
    def averages_beside(self) -> nn.ModuleDict:
        """Moving averages of what is learned beside the network."""
        found = self.average_beside.module
        assert isinstance(found, nn.ModuleDict)
        return found

    # ---- time ----------------------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """Wall-clock seconds this part was trained, resumed time included."""
        return self.seconds_before + time.monotonic() - self._began

    @property
    def fraction(self) -> float:
        """Share of the budget that is spent; every rank has the same."""
        return self._fraction

    def _tick(self) -> None:
        fraction = self.budget.fraction(self.global_step, self.seconds)
        if self.trainer.world_size > 1:  # clocks and signals differ between ranks, decisions must not
            fraction = self.trainer.strategy.broadcast(fraction)
        self._agree_to_stop()
        self._fraction = fraction

    def _agree_to_stop(self) -> None:
        if self.trainer.world_size > 1:
            self.stop_asked = self.trainer.strategy.reduce_boolean_decision(self.stop_asked, all=False)

    @property
    def growth(self) -> float:
        """How far the curriculum has come, 0 to 1; 1 where there is none."""
        if not self.config.curriculum:
            return 1.0
        return min(1.0, self._fraction / max(1e-9, self.config.curriculum_share))

    def ceiling(self) -> float:
        """Share of the crystals, simplest first, that training sees now."""
        return 1.0 if self.growth >= 1 else 0.1 + 0.9 * self.growth

    # ---- Lightning's hooks ---------------------------------------------------------------------------------

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The one asked for; the learning rate is set before each batch."""
        c = self.config
        return make_optimiser(
            c.optimiser,
            (self.network, self.beside),
            learning_rate=c.learning_rate,
            weight_decay=c.weight_decay,
        )

    def _parameters_to_train(self) -> list[nn.Parameter]:
        return [p for part in (self.network, self.beside) for p in part.parameters() if p.requires_grad]

    def on_fit_start(self) -> None:
        """Compile the layers where that is asked for, and start the clock."""
        minutes, steps = self.budget.minutes, self.budget.max_steps
        wanted = compiles(self.config.compile, self.device.type, minutes=minutes, max_steps=steps)
        if self.part in ("geometry", "weak") and wanted:
            compile_layers(self.network)
        self._began = time.monotonic()

    def on_train_batch_start(self, batch: TrainingBatch, batch_idx: int) -> None:
        """Set the learning rate of this step."""
        self._tick()
        c = self.config
        factor = cosine_with_warmup(
            self.global_step, self._fraction, warmup_steps=c.warmup_steps, final=c.final_learning_rate
        )
        for group in self.optimizers().param_groups:  # type: ignore[union-attr]
            group["lr"] = c.learning_rate * factor

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> Tensor:
        """Loss of one batch; crystals whose loss is not finite are named and left out."""
        seed = self._seed(self.batches_done)
        with _seeded(seed, self.device):
            content = batch.content
            example = self.task.prepare(content, seed, noise_level=0.3 + 0.7 * self.growth)
            losses = self.task.losses(self.network, example)
            if torch.isfinite(losses["loss"]):
                self._since_step.append((example, content))
            else:
                losses = self._without_non_finite(example, content)
        self._learn(losses)
        self.train_losses = {name: value.detach() for name, value in losses.items()}
        self.batches_done += 1
        self.cursor = batch.after
        return losses["loss"]

    def _learn(self, losses: Losses) -> None:
        """Give the task's tables what all ranks have seen."""
        tables = {name: losses.tables.get(name, zeros) for name, zeros in self.task.empty_tables().items()}
        if not tables:
            return
        if self.trainer.world_size > 1:
            reduce = self.trainer.strategy.reduce
            tables = {
                name: (reduce(sums, reduce_op="sum"), reduce(counts, reduce_op="sum"))
                for name, (sums, counts) in tables.items()
            }
        self.task.learn(tables)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Drop a gradient that is not finite, and report what was not since the last step."""
        gradients = [p.grad for p in self._parameters_to_train() if p.grad is not None]
        if gradients and not torch.isfinite(torch.stack([g.sum() for g in gradients]).sum()):
            rows = [
                int(content.rows[i])
                for example, content in self._since_step
                for i in range(len(example))
                if not self._has_finite_gradient(example, i)
            ]
            self._note(self.batches_done - 1, "gradient", rows)
            for parameter in self._parameters_to_train():
                parameter.grad = None
        self._since_step.clear()
        self._report_non_finite()

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        """One step of the optimiser, then of the averaged weights."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.average.update_parameters(self.network)
        if len(self.beside):
            self.average_beside.update_parameters(self.beside)

    def on_train_batch_end(self, outputs: Any, batch: TrainingBatch, batch_idx: int) -> None:
        """Stop when the budget is spent or that is asked for, between two steps of the optimiser."""
        self._tick()
        spent = self._fraction >= 1
        if (spent or self.stop_asked) and self.batches_done % self.config.accumulate == 0:
            self.interrupted = not spent
            self.trainer.should_stop = True

    def on_train_end(self) -> None:
        """Hear of what was asked for during the last validation."""
        self._agree_to_stop()

    @property
    def validation_counts(self) -> bool:
        """Whether a run without an interruption would validate here; Lightning validates at the end of any."""
        return not self.interrupted or self.global_step % self.config.validate_every == 0

    def validation_step(self, batch: ValidationBatch, batch_idx: int) -> None:
        """Add up the losses of the averaged network, on the same noise every time."""
        if not self.validation_counts:
            return
        seed = int(np.random.SeedSequence([self.config.seed, 7, batch.number]).generate_state(1)[0])
        network = self.average.module if self.average.n_averaged else self.network
        count = len(batch) if batch.counts else 0
        for name, value in self.validation_task.validation(network, batch.content, seed).items():
            self._sums[name] = self._sums.get(name, 0.0) + (float(value) * count if count else 0.0)
        self._sums["crystals"] = self._sums.get("crystals", 0.0) + count

    def on_validation_epoch_start(self) -> None:
        """Forget the sums of the last validation."""
        self._sums = {}

    def on_validation_epoch_end(self) -> None:
        """Mean losses over all crystals, of all ranks."""
        if not self.validation_counts:
            return
        names = sorted(self._sums)
        sums = torch.tensor([self._sums[name] for name in names], device=self.device)
        if self.trainer.world_size > 1:
            sums = self.trainer.strategy.reduce(sums, reduce_op="sum")
        total = dict(zip(names, sums.tolist()))
        count = total.pop("crystals", 0.0)
        self.validation_losses = {name: value / count for name, value in total.items()} if count else {}
        if self.sample_content is not None and self.global_rank == 0:
            network = self.average.module if self.average.n_averaged else self.network
            content = self.sample_content.to(self.device)
            steps = self.config.sample_steps
            self.sample_figures = self.validation_task.sample(network, content, self.config.seed, steps)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add where in the data and in the budget the run is."""
        checkpoint["nucleate"] = {
            "cursor": self.cursor.to_dict(),
            "batches_done": self.batches_done,
            "seconds": self.seconds,
            "num_non_finite": self.num_non_finite,
            "fraction": self._fraction,
        }

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Go on where the checkpoint was written."""
        state = checkpoint["nucleate"]
        self.cursor = Cursor(**state["cursor"])
        self.batches_done, self.seconds_before = state["batches_done"], state["seconds"]
        self.num_non_finite, self._fraction = state["num_non_finite"], state["fraction"]

    # ---- NaN -----------------------------------------------------------------------------------------------

    def _without_non_finite(self, example: Any, content: SourcedCrystals) -> Losses:
        """Losses of the crystals whose own loss is finite; the others are noted."""
        with torch.no_grad():
            alone = [
                self.task.losses(self.network, example.take(torch.tensor([i])))["loss"]
                for i in range(len(example))
            ]
        finite = torch.isfinite(torch.stack(alone)).cpu()
        self._note(self.batches_done, "loss", content.rows[~finite].tolist())
        kept = torch.nonzero(finite)[:, 0]
        if 0 < len(kept) < len(example):
            example, content = example.take(kept), content.take(kept)
            losses = self.task.losses(self.network, example)
            if torch.isfinite(losses["loss"]):
                self._since_step.append((example, content))
                return losses
        # nothing to learn from; a zero loss keeps the ranks of a distributed run in step
        zero = sum(p.sum() for p in self._parameters_to_train()) * 0.0
        return Losses({"loss": torch.as_tensor(zero)})

    def _has_finite_gradient(self, example: Any, index: int) -> bool:
        parameters = self._parameters_to_train()
        context = self.trainer.precision_plugin.train_step_context()
        with torch.enable_grad(), _seeded(0, self.device), context:
            loss = self.task.losses(self.network, example.take(torch.tensor([index])))["loss"]
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        return all(bool(torch.isfinite(g).all()) for g in gradients if g is not None)

    def _note(self, batch: int, what: Literal["loss", "gradient"], rows: list[int]) -> None:
        self._non_finite.append(NonFinite(batch, self.global_step, what, tuple(rows)))

    def _report_non_finite(self) -> None:
        """Report what all ranks have noted; give up where it is too much, on all ranks."""
        found = found_by_all(self._non_finite, self.trainer)
        self._non_finite.clear()
        for one in found:
            self.num_non_finite += 1
            self.report_non_finite(one)
            if self.num_non_finite > MOST_NON_FINITE:
                raise TrainingError(
                    f"{self.num_non_finite} batches of the {self.part} network had a {one.what} that is not finite; "
                    "the crystals are named in non_finite.csv: lower learning_rate, or leave those crystals out"
                )

    def _seed(self, number: int) -> int:
        part = ("geometry", "template", "weak", "properties").index(self.part)
        words = [self.config.seed, part, self.global_rank, number]
        return int(np.random.SeedSequence(words).generate_state(1)[0])

    def averaged_network(self) -> Any:
        """A copy of the network with averaged weights, on the CPU, in evaluation mode."""
        source = self.average.module if self.average.n_averaged else self.network
        return copy.deepcopy(source).cpu().float().eval()


Weights = tuple[Tensor, ...] | list[Tensor]


def _moving_average(decay: float) -> Callable[[Weights, Weights, Tensor | int], None]:
    def average(averaged: Weights, current: Weights, count: Tensor | int) -> None:
        """Exponential moving average in place; its memory grows with the number of updates."""
        n = int(count)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + n) / (10 + n)))

    return average


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Dropout and the like follow from the seed; the random state outside is left as it was."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
