"""A step that costs nothing, and fails on purpose at one candidate while it does many."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from faulty_emt import note

from nucleate.crystal import Crystal
from nucleate.evaluation.column import Column
from nucleate.screening.step import StepItem, StepResult


@dataclass(frozen=True)
class QuickStep:
    """Counts orbits; at the candidate ``culprit`` it raises (``fault`` of ``raises``) or dies (``dies``)."""

    culprit: str
    fault: str
    is_quick: bool
    name: str = "quick"
    columns: tuple[Column, ...] = (Column("orbits", pa.int64(), "Orbits."),)
    uses: tuple[str, ...] = ()
    batch_size: int = 64

    def digest(self) -> str:
        return "quick"

    def run(self, candidate_id: str, crystal: Crystal, properties: Mapping[str, Any]) -> StepResult:
        note(candidate_id)
        if candidate_id == self.culprit:
            if self.fault == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("on purpose")
        return StepResult(crystal, "passed", {"orbits": crystal.num_orbits})

    def run_many(self, items: Sequence[StepItem]) -> Iterator[tuple[int, StepResult]]:
        for place, item in enumerate(items):
            yield place, self.run(item.candidate_id, item.crystal, item.properties)
