"""Which weights of a run stay: those of the best validation, or the last ones."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from nucleate.models.checkpoint import load_checkpoint
from nucleate.training.config import TrainingConfig
from nucleate.training.network_module import NetworkModule
from nucleate.training.train import train

Configs = Callable[..., TrainingConfig]


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_weights_that_stay_are_the_best_or_the_last(
    store_path: Path, small_config: Configs, tmp_path: Path, keep: Literal["best", "last"]
) -> None:
    """At this learning rate the loss of few crystals falls and rises again."""
    config = small_config(
        part="template", max_steps=80, validate_every=4, learning_rate=0.1, ema_decay=0.5, keep=keep
    )
    report = train(store_path, config, out=tmp_path / "run")
    with (tmp_path / "run" / "metrics.csv").open() as stream:
        rows = [r for r in csv.DictReader(stream) if (r["split"], r["quantity"]) == ("val", "loss")]
    losses = [float(r["value"]) for r in rows]
    assert losses[0] > min(losses) < losses[-1]
    kept = losses.index(min(losses)) if keep == "best" else len(losses) - 1
    history = load_checkpoint(report.weights).history
    assert history.metrics["template_val_loss"] == pytest.approx(losses[kept], rel=1e-5)
    assert history.training["template"]["steps"] == int(rows[kept]["step"])
    assert report.validation["template"]["loss"] == pytest.approx(losses[kept], rel=1e-5)
    assert report.costs["template"]["steps"] == 80


@pytest.mark.parametrize(("with_number", "kept_step"), [(8, 8), (None, 12)])
def test_losses_that_are_no_numbers_lose_no_training(
    store_path: Path,
    small_config: Configs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    with_number: int | None,
    kept_step: int,
) -> None:
    original = NetworkModule.on_validation_epoch_end

    def ends(self: NetworkModule) -> None:
        original(self)
        if self.global_step != with_number:
            self.validation_losses = {"loss": math.nan}

    monkeypatch.setattr(NetworkModule, "on_validation_epoch_end", ends)
    config = small_config(part="template", max_steps=12, validate_every=4)
    report = train(store_path, config, out=tmp_path / "run")
    assert load_checkpoint(report.weights).history.training["template"]["steps"] == kept_step
    assert math.isnan(report.validation["template"]["loss"]) == (with_number is None)
