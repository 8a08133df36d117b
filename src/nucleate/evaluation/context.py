"""What a family of metrics knows about the evaluation it is part of."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from nucleate.evaluation.cached_arrays import cached_arrays
from nucleate.evaluation.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

    from nucleate.evaluation.reference import Reference

Item = TypeVar("Item")
Result = TypeVar("Result")

Mapper = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]


def map_here(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """Results of ``function`` one after the other, in this process."""
    return map(function, items)


def _silent(done: int, total: int | None, note: str) -> None:
    """Nobody is watching."""


@dataclass(frozen=True)
class Context:
    """What rows, columns across the set and averages are computed from, beside the crystals.

    Attributes:
        reference: the crystals the set is compared with; None where the user named none, and metrics that
            need it then say so.
        settings: thresholds and tolerances.
        seed: of everything random: bootstrap, permutation, samples.
        cache: folder of this run for what is expensive and not a row; use ``cached``.
        subject: ``crystals`` for the set that is evaluated, ``held_out`` while the held-out sample of the
            reference is scored: compare that with ``reference.train``, or it is compared with itself.
        held_out_rows: in ``summary`` of the set itself the rows of the held-out sample, with the columns of the
            families that scored it; None without a reference or where it has no score.
        report_progress: tell how far a long ``across`` or ``summary`` is: (done, total, note).
        mapper: runs a function over items in parallel, results in order; use ``map``.
    """

    reference: Reference | None
    settings: Settings = field(default_factory=Settings)
    seed: int = 0
    cache: Path = Path(".")
    subject: Literal["crystals", "held_out"] = "crystals"
    held_out_rows: pa.Table | None = None
    report_progress: Callable[[int, int | None, str], None] = _silent
    mapper: Mapper = map_here

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Results of ``function`` for each item, in order, on the processes of the evaluation.

        ``function`` is defined at the top of a module; items and results are picklable and large enough (a
        bucket, a block of distances) to be worth sending.
        """
        return self.mapper(function, items)

    def rng(self, *key: object) -> np.random.Generator:
        """A random generator of its own for a purpose: the same seed and key give the same stream."""
        text = "\x1f".join(str(part) for part in (self.seed, *key))
        return np.random.default_rng(
            int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")
        )

    def cached(self, key: str, build: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Arrays kept in the folder of this run under ``key``, built where they are missing or damaged.

        ``key`` names everything the arrays depend on (input, settings, version): other keys, other files.
        """
        return cached_arrays(self.cache, key, build)
