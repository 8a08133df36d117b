"""Ctrl-C: a run that goes on ends as one that was never stopped."""

from __future__ import annotations

import csv
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nucleate.models.checkpoint import load_checkpoint
from nucleate.training.config import TrainingConfig
from nucleate.training.network_module import NetworkModule
from nucleate.training.recorder import RunRecorder, TrainingProgress
from nucleate.training.train import train

Configs = Callable[..., TrainingConfig]


def _rows(folder: Path) -> list[tuple[str, ...]]:
    with (folder / "metrics.csv").open() as stream:
        rows = [r for r in csv.DictReader(stream) if r["quantity"] != "crystals_per_second"]
    return [(r["part"], r["step"], r["split"], r["quantity"], r["value"]) for r in rows]


@pytest.mark.parametrize(("batches", "done", "kept"), [(11, 6, 4), (8, 4, 4), (5, 3, 3)])
def test_ctrl_c_loses_nothing_and_changes_nothing(
    store_path: Path,
    small_config: Configs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batches: int,
    done: int,
    kept: int,
) -> None:
    """Pressed after a number of batches, also between those of one step; what was validated stays the best."""
    config = small_config(part="template", accumulate=2)
    original = RunRecorder.on_train_batch_end

    def pressing(self: RunRecorder, trainer, pl_module, outputs, batch, batch_idx) -> None:
        original(self, trainer, pl_module, outputs, batch, batch_idx)
        if pl_module.batches_done == batches:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(RunRecorder, "on_train_batch_end", pressing)
        with pytest.raises(KeyboardInterrupt, match="repeat the command to go on"):
            train(store_path, config, out=tmp_path / "run")
    rows = _rows(tmp_path / "run")
    assert {row[1] for row in rows if row[2] == "val"} == ({"4"} if done >= 4 else set())
    history = load_checkpoint(tmp_path / "run" / "weights.safetensors").history
    assert history.training["template"]["steps"] == kept
    report = train(store_path, config, out=tmp_path / "run")
    assert report.costs["template"]["steps"] == 8
    whole = train(store_path, config, out=tmp_path / "whole")
    assert _rows(tmp_path / "run") == _rows(tmp_path / "whole")
    assert report.validation == whole.validation
    networks = [load_checkpoint(r.weights).template for r in (report, whole)]
    for mine, theirs in zip(*(n.parameters() for n in networks if n is not None), strict=True):
        assert torch.equal(mine, theirs)


def test_ctrl_c_at_the_end_of_a_part_finishes_it_and_stops(
    store_path: Path, small_config: Configs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pressed during the last validation of the first network."""
    config = small_config(max_steps=2, validate_every=2, sample_crystals=0)
    original = NetworkModule.on_validation_epoch_end

    def pressing(self: NetworkModule) -> None:
        original(self)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(NetworkModule, "on_validation_epoch_end", pressing)
        with pytest.raises(KeyboardInterrupt, match="repeat the command to go on"):
            train(store_path, config, out=tmp_path / "run")
    seen: list[TrainingProgress] = []
    report = train(store_path, config, out=tmp_path / "run", on_progress=seen.append)
    assert {p.part for p in seen} == {"template"}
    assert {part: cost["steps"] for part, cost in report.costs.items()} == {"geometry": 2, "template": 2}
