"""A training run that dies between two of its steps."""

from __future__ import annotations

import pytest

from nucleate.training.recorder import RunRecorder


class Killed(BaseException):
    """What a kill is to the process it hits."""


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """The process dies in the middle of this step, after others were checkpointed."""
    original = RunRecorder.on_train_batch_end

    def dying(self: RunRecorder, trainer, pl_module, outputs, batch, batch_idx) -> None:
        original(self, trainer, pl_module, outputs, batch, batch_idx)
        if trainer.global_step == step:
            raise Killed

    monkeypatch.setattr(RunRecorder, "on_train_batch_end", dying)
