"""Which candidates have come how far: a few bytes each, whatever the number of candidates."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nucleate.crystal import Crystal
from nucleate.screening.journal import Journal
from nucleate.screening.pool import CandidatePool
from nucleate.screening.records import crystal_of_record
from nucleate.screening.step import StepItem

IN, LEFT, FAILED = 0, 1, 2
STATUS = ("passed", "left", "failed")
READ = "read"
_NUMBER = re.compile(r"-?\d[\d.]*(e[-+]?\d+)?")
_LONGEST = 90


@dataclass(frozen=True)
class StepCount:
    """How many went into a step and what became of them.

    Attributes:
        step: its name; ``read`` for the reading of the input.
        given: candidates that went in.
        passed: that went on.
        left: that were judged and are out.
        failed: that could not be computed.
        reasons: (reason without its numbers, how many), the most frequent first.
    """

    step: str
    given: int
    passed: int
    left: int
    failed: int
    reasons: tuple[tuple[str, int], ...]


def reason_kind(reason: str) -> str:
    """A reason without its numbers, so that equal reasons can be counted."""
    text = _NUMBER.sub("#", reason)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


@dataclass(eq=False)
class FunnelState:
    """How far every candidate has come.

    Attributes:
        pool: the candidates.
        status: 0 in, 1 left, 2 failed.
        last: number of the last step that saw the candidate, 0 for ``read``.
        steps: names of the steps so far, ``read`` first.
        keys: key of the verdict of each row, by step.
        representative: row of which a row is a copy, itself for the others.
        counts: what each step did.
    """

    pool: CandidatePool
    status: np.ndarray = field(init=False)
    last: np.ndarray = field(init=False)
    representative: np.ndarray = field(init=False)
    steps: list[str] = field(default_factory=lambda: [READ])
    keys: dict[str, np.ndarray] = field(default_factory=dict)
    counts: list[StepCount] = field(default_factory=list)

    def __post_init__(self) -> None:
        n = len(self.pool)
        self.status = np.where(self.pool.is_encoded, IN, FAILED).astype(np.int8)
        self.last = np.zeros(n, dtype=np.int8)
        self.representative = np.arange(n)
        problems = Counter(reason_kind(self.pool[int(row)].problem) for row in np.flatnonzero(self.status))
        self._count(READ, n, problems)

    def rows(self) -> np.ndarray:
        """Rows that are still in, ascending."""
        return np.flatnonzero(self.status == IN)

    def take_duplicates(self, step: str, representative: np.ndarray) -> None:
        """Take out copies."""
        given = self.rows()
        self.steps.append(step)
        self.last[given] = len(self.steps) - 1
        self.representative[given] = representative[given]
        copies = given[representative[given] != given]
        self.status[copies] = LEFT
        self._count(
            step, len(given), Counter({"a copy of another candidate": len(copies)} if len(copies) else {})
        )

    def begin_step(self, step: str) -> np.ndarray:
        """Rows that go into a step; their keys are kept under its name."""
        given = self.rows()
        self.steps.append(step)
        self.last[given] = len(self.steps) - 1
        self.keys[step] = np.zeros(len(self.pool), dtype="S32")
        return given

    def end_step(self, step: str, given: np.ndarray, journal: Journal) -> None:
        """Read the verdicts on the rows that went in.

        Raises:
            KeyError: one of them has none.
        """
        reasons: Counter[str] = Counter()
        for row in given.tolist():
            record = self.record(step, row, journal)
            self.status[row] = STATUS.index(record["status"])
            if record["reason"]:
                reasons[reason_kind(record["reason"])] += 1
        self._count(step, len(given), reasons)

    def record(self, step: str, row: int, journal: Journal) -> dict[str, Any]:
        """The verdict of a step on a row."""
        key = self.keys[step][row].decode()
        record = journal.get(key)
        if record is None:
            raise KeyError(f"row {row} has no verdict of the step {step}")
        return record

    def records(self, row: int, journal: Journal) -> list[tuple[str, dict[str, Any]]]:
        """(step, verdict) of every step that has seen a row."""
        seen = self.steps[: int(self.last[row]) + 1]
        return [
            (step, self.record(step, row, journal))
            for step in seen
            if step in self.keys and self.keys[step][row]
        ]

    def item(self, row: int, journal: Journal) -> StepItem:
        """A row as the next step sees it."""
        given = self.pool[row]
        crystal = given.crystal
        assert crystal is not None
        properties: dict[str, Any] = {f"given.{name}": value for name, value in given.given.items()}
        for _, record in self.records(row, journal):
            properties |= record["columns"]
            crystal = crystal_of_record(record, crystal)
        return StepItem(given.id, crystal, properties)

    def final_crystal(
        self, crystal: Crystal | None, records: Sequence[tuple[str, dict[str, Any]]]
    ) -> Crystal | None:
        """The crystal of a row after its last step."""
        for _, record in records:
            if crystal is not None:
                crystal = crystal_of_record(record, crystal)
        return crystal

    def _count(self, step: str, given: int, reasons: Counter[str]) -> None:
        mine = self.last == len(self.steps) - 1
        left, failed = (int((mine & (self.status == kind)).sum()) for kind in (LEFT, FAILED))
        self.counts.append(
            StepCount(step, given, given - left - failed, left, failed, tuple(reasons.most_common()))
        )
