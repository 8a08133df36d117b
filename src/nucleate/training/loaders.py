"""What Lightning draws batches from: the stream of a rank, and its share of the validation batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import lightning.pytorch as pl
import torch

from nucleate.training.crystal_stream import CrystalStream, SourcedCrystals, TrainingBatch, ValidationBatch
from nucleate.training.network_module import NetworkModule


class TrainingLoader:
    """The stream from the module's cursor on, with the rank and the curriculum of the trainer."""

    def __init__(self, stream: CrystalStream, module: NetworkModule, trainer: pl.Trainer) -> None:
        self.stream, self.module, self.trainer = stream, module, trainer

    def __iter__(self) -> Iterator[TrainingBatch]:
        self.stream.rank, self.stream.num_ranks = self.trainer.global_rank, self.trainer.world_size
        self.stream.ceiling = self.module.ceiling
        self.stream.start = self.module.cursor
        return iter(self.stream)


class ValidationLoader:
    """The validation batches of a rank: every rank has as many, and together they are those of one process."""

    def __init__(self, batches: Sequence[SourcedCrystals], trainer: pl.Trainer) -> None:
        self.batches, self.trainer = batches, trainer

    def __len__(self) -> int:
        return -(-len(self.batches) // self.trainer.world_size)

    def __iter__(self) -> Iterator[ValidationBatch]:
        for k in range(len(self)):
            number = k * self.trainer.world_size + self.trainer.global_rank
            if number < len(self.batches):
                yield ValidationBatch(self.batches[number], number)
            else:
                yield ValidationBatch(self.batches[0].take(torch.tensor([0])), number, counts=False)
