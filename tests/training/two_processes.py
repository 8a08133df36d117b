"""Trainings in two processes, run as a script: ``two_processes.py STORE FOLDER`` with configurations in FOLDER.

Every ``FOLDER/*.yaml`` is trained into a folder of its name; each rank writes what came of it to ``NAME.RANK.json``.
Where the name begins with ``loss`` or ``gradient``, that of crystals with the element number ``SPOILED`` is not finite,
and training gives up at the first such batch where it ends with ``strict``. Where the name is ``interrupted``, only the
second rank hears of Ctrl-C, after three batches.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from nucleate.errors import TrainingError
from nucleate.training.config import read_config
from nucleate.training.geometry_task import GeometryTask
from nucleate.training.recorder import RunRecorder
from nucleate.training.train import train


def spoil(patch: pytest.MonkeyPatch, what: str) -> None:
    """Make the loss or the gradient of crystals with the spoiled element something that is not finite."""
    original, element = GeometryTask.losses, int(os.environ["SPOILED"])

    def losses(self, network, example):
        found = original(self, network, example)
        if (example.clean.atomic_numbers == element).any() and network.training:
            zero = 0 * network.force_gate[-1].bias.sum()
            # the square root of 0 has an infinite slope
            found["loss"] = found["loss"] + (torch.nan if what == "loss" else torch.sqrt(zero**2))
        return found

    patch.setattr(GeometryTask, "losses", losses)


def press(patch: pytest.MonkeyPatch) -> None:
    """Ctrl-C after three batches, on the second rank."""
    original = RunRecorder.on_train_batch_end

    def pressing(self, trainer, pl_module, outputs, batch, batch_idx):
        original(self, trainer, pl_module, outputs, batch, batch_idx)
        if pl_module.batches_done == 3 and trainer.global_rank == 1:
            os.kill(os.getpid(), signal.SIGINT)

    patch.setattr(RunRecorder, "on_train_batch_end", pressing)


def outcome(store: str, config: Path, out: Path) -> dict[str, Any]:
    """What a training ends with, for this rank."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        what = config.stem.split("_")[0]
        if what in ("loss", "gradient"):
            spoil(patch, what)
            warnings.simplefilter("ignore")
        if what == "interrupted":
            press(patch)
        if config.stem.endswith("strict"):
            patch.setattr("nucleate.training.network_module.MOST_NON_FINITE", 0)
        try:
            report = train(store, read_config(config), out=out)
        except TrainingError as error:
            return {"error": str(error)}
        except KeyboardInterrupt as interrupt:
            return {"interrupted": str(interrupt)}
    return {"costs": report.costs, "validation": report.validation, "num_non_finite": report.num_non_finite}


def main() -> None:
    """Train one configuration after the other: starting the processes takes longer than a training."""
    store, folder = sys.argv[1], Path(sys.argv[2])
    rank = os.environ.get("LOCAL_RANK", "0")
    for config in sorted(folder.glob("*.yaml")):
        found = outcome(store, config, folder / config.stem)
        (folder / f"{config.stem}.{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
