"""Losses and gradients that are not finite, and the crystals they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import lightning.pytorch as pl
import torch


@dataclass(frozen=True)
class NonFinite:
    """A loss or gradient that is not finite.

    Attributes:
        batch: number of the batch it was found in.
        step: optimiser steps done.
        what: what is not finite.
        rows: rows in the store of the crystals it comes from; none where it is that of no crystal alone.
    """

    batch: int
    step: int
    what: Literal["loss", "gradient"]
    rows: tuple[int, ...]


def found_by_all(found: Sequence[NonFinite], trainer: pl.Trainer) -> list[NonFinite]:
    """What all ranks found, the same on each of them; batches of one number count as one batch.

    All ranks have to ask at the same time.
    """
    if trainer.world_size == 1:
        return list(found)
    if not trainer.strategy.reduce_boolean_decision(bool(found), all=False):
        return []
    by_rank: list[Sequence[NonFinite]] = [()] * trainer.world_size
    torch.distributed.all_gather_object(by_rank, list(found))
    rows: dict[tuple[int, int, Literal["loss", "gradient"]], set[int]] = {}
    for one in (one for own in by_rank for one in own):
        rows.setdefault((one.batch, one.step, one.what), set()).update(one.rows)
    return [NonFinite(*key, tuple(sorted(rows[key]))) for key in sorted(rows, key=lambda key: key[:2])]
