"""What a run writes while it trains: rows of losses, weights, checkpoints, and a word on its progress."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from nucleate.training.curves import draw_curves
from nucleate.training.network_module import NetworkModule
from nucleate.training.run_folder import RunFolder


@dataclass(frozen=True)
class TrainingProgress:
    """Where a run is.

    Attributes:
        part: network being trained.
        step: optimiser steps done.
        fraction: share of the part's budget spent.
        seconds_left: estimate for the part.
        crystals_per_second: since the last report.
        losses: last training losses.
        validation_losses: of the last validation, empty before the first.
    """

    part: str
    step: int
    fraction: float
    seconds_left: float | None
    crystals_per_second: float
    losses: Mapping[str, float]
    validation_losses: Mapping[str, float]


class RunRecorder(Callback):
    """Writes metrics every ``log_every`` steps, a checkpoint every ``validate_every``, and weights where they are kept.

    The first Ctrl-C, on any rank, ends training after the current step and keeps everything.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        write_weights: Callable[[], None],
        has_validation: bool,
        on_progress: Callable[[TrainingProgress], None] | None,
        tensorboard: TensorBoardLogger | None,
    ) -> None:
        self.folder, self.write_weights, self.has_validation = folder, write_weights, has_validation
        self.on_progress, self.tensorboard = on_progress, tensorboard
        self._crystals = 0
        self._since = time.monotonic()
        self._step = -1
        self._first_fraction = 0.0
        self._started = time.monotonic()
        self._old_handler: Any = None

    # ---- Ctrl-C --------------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen for Ctrl-C."""
        if threading.current_thread() is threading.main_thread():
            pressed = False

            def stop(signum: int, frame: FrameType | None) -> None:
                nonlocal pressed
                if pressed:
                    raise KeyboardInterrupt
                pressed = _module(pl_module).stop_asked = True

            self._old_handler = signal.signal(signal.SIGINT, stop)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Stop listening."""
        if self._old_handler is not None:
            signal.signal(signal.SIGINT, self._old_handler)
            self._old_handler = None

    # ---- training ------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start counting; rows that will be written again are dropped."""
        module = _module(pl_module)
        self._since = self._started = time.monotonic()
        self._step, self._first_fraction = trainer.global_step, module.fraction
        if trainer.is_global_zero:
            self.folder.forget_after(module.part, trainer.global_step)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write what is due after an optimiser step."""
        module = _module(pl_module)
        self._crystals += len(batch) * trainer.world_size
        step = trainer.global_step
        if step == self._step:
            return
        self._step = step
        due = step % module.config.validate_every == 0
        if due:
            self.save(trainer, module)
            if not self.has_validation:
                if trainer.is_global_zero:
                    self.write_weights()
                self._curves(trainer)
        if step % module.config.log_every == 0 or due:
            self._log(trainer, module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep everything, also where the run was stopped between two validations."""
        self.save(trainer, _module(pl_module))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the weights where they are kept, then their losses: no row of a killed run lacks its weights."""
        module = _module(pl_module)
        if not module.validation_counts:
            return
        if trainer.is_global_zero:
            self.write_weights()
        self._write("val", module, trainer, module.validation_losses)
        self._write("sample", module, trainer, module.sample_figures)
        self._curves(trainer)
        self._since, self._crystals = time.monotonic(), 0

    def save(self, trainer: pl.Trainer, module: NetworkModule) -> None:
        """Write everything needed to go on from here; the old checkpoint stays until the new one is complete."""
        target = self.folder.checkpoint(module.part)
        part = target.with_suffix(".tmp")
        trainer.save_checkpoint(part)
        if trainer.is_global_zero:
            os.replace(part, target)

    def _curves(self, trainer: pl.Trainer) -> None:
        if trainer.is_global_zero:
            rows = self.folder.read_metrics()
            draw_curves(rows, self.folder.path / "loss.png", splits=("train", "val"))
            draw_curves(rows, self.folder.path / "samples.png", splits=("sample",))

    def _log(self, trainer: pl.Trainer, module: NetworkModule) -> None:
        now = time.monotonic()
        rate = self._crystals / max(1e-9, now - self._since)
        self._since, self._crystals = now, 0
        if not trainer.is_global_zero:
            return
        losses = {name: float(value) for name, value in module.train_losses.items()}
        lr = float(trainer.optimizers[0].param_groups[0]["lr"])
        self._write("train", module, trainer, {**losses, "learning_rate": lr, "crystals_per_second": rate})
        if self.on_progress is not None:
            gained = module.fraction - self._first_fraction
            left = (1 - module.fraction) / gained * (now - self._started) if gained > 0 else None
            self.on_progress(
                TrainingProgress(
                    module.part,
                    trainer.global_step,
                    module.fraction,
                    left,
                    rate,
                    losses,
                    module.validation_losses,
                )
            )

    def _write(
        self, split: str, module: NetworkModule, trainer: pl.Trainer, values: Mapping[str, float]
    ) -> None:
        if not trainer.is_global_zero:
            return
        self.folder.add_metrics(module.part, trainer.global_step, module.seconds / 60, split, values)
        if self.tensorboard is not None:
            named = {f"{module.part}/{split}/{name}": value for name, value in values.items()}
            self.tensorboard.log_metrics(named, step=trainer.global_step)


def _module(pl_module: pl.LightningModule) -> NetworkModule:
    assert isinstance(pl_module, NetworkModule)
    return pl_module
