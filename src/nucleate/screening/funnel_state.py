"""Which candidates have come how far: a few bytes each, whatever the number of candidates."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from nucleate.screening.journal import Journal
from nucleate.screening.pool import CandidatePool
from nucleate.screening.stored_item import StoredItem

IN, LEFT, FAILED = 0, 1, 2
STATUS = ("passed", "left", "failed")
READ = "read"
_NUMBER = re.compile(r"-?\d[\d.]*(e[-+]?\d+)?")
_LONGEST = 90
_CHUNK = 512


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
        # Equal crystals have one verdict: each key is looked up once, for all rows that share it.
        keys, key_of_row, shared = np.unique(self.keys[step][given], return_inverse=True, return_counts=True)
        numbers = {key.decode(): number for number, key in enumerate(keys.tolist())}
        verdicts = np.full(len(keys), IN - 1, dtype=np.int8)
        reasons: Counter[str] = Counter()
        for key, text in journal.texts(numbers):
            record, number = json.loads(text), numbers[key]
            verdicts[number] = STATUS.index(record["status"])
            if record["reason"]:
                reasons[reason_kind(record["reason"])] += int(shared[number])
        status = verdicts[key_of_row]
        if (status < IN).any():
            row = given[int(np.argmin(status))]
            raise KeyError(f"row {row} has no verdict of the step {step}")
        self.status[given] = status
        self._count(step, len(given), reasons)

    def seen_keys(self, row: int) -> list[tuple[str, str]]:
        """(step, key of its verdict) of every step that has judged a row."""
        return [
            (step, self.keys[step][row].decode())
            for step in self.steps[: int(self.last[row]) + 1]
            if step in self.keys and self.keys[step][row]
        ]

    def stored(self, rows: Iterable[int], journal: Journal) -> Iterator[tuple[int, StoredItem]]:
        """(row, candidate) as the next step sees it, in the order asked for; some hundred are in memory at a time.

        Raises:
            KeyError: a verdict is missing.
        """
        waiting = iter(rows)
        while some := list(islice(waiting, _CHUNK)):
            keys = [self.seen_keys(row) for row in some]
            texts = dict(journal.texts({key for seen in keys for _, key in seen}))
            for row, line, seen in zip(some, self.pool.lines(some), keys):
                yield row, StoredItem(line, tuple(texts[key] for _, key in seen))

    def _count(self, step: str, given: int, reasons: Counter[str]) -> None:
        mine = self.last == len(self.steps) - 1
        left, failed = (int((mine & (self.status == kind)).sum()) for kind in (LEFT, FAILED))
        self.counts.append(
            StepCount(
                step,
                given,
                given - left - failed,
                left,
                failed,
                tuple(sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))),
            )
        )
