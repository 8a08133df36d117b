"""The crystals a set is compared with: a store, its training part, its held-out part, and what is cached of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import numpy as np

from nucleate.data.folder import LocalFolder
from nucleate.data.store import Store
from nucleate.errors import NucleateError, StoreError
from nucleate.evaluation.cached_arrays import cached_arrays
from nucleate.evaluation.candidate import SYMPREC, Candidate, make_candidate
from nucleate.evaluation.candidate_store import (
    CANDIDATE_CODE,
    INDEX_FILE,
    PART_SIZE,
    CandidateStore,
    Part,
    write_index,
    write_part,
)
from nucleate.evaluation.own_formats import store_cell
from nucleate.evaluation.source_digest import source_digest

HELD_OUT_SPLITS = ("test", "val")
HELD_OUT_SHARE = 0.1


class Reference:
    """A store as the yardstick of an evaluation.

    The held-out part is the split ``test`` where it has records, else ``val``, else a tenth of the records
    chosen by the hash of seed and id. It is scored with the same functions as the set that is evaluated, and
    that score is the ceiling: what real crystals reach.
    """

    def __init__(self, store: Store, cache: Path, *, seed: int = 0) -> None:
        self.store = store
        self.cache = cache / "reference" / store.content_hash[:32]
        self.seed = seed

    @classmethod
    def open(cls, path: str | os.PathLike[str], cache: Path, *, seed: int = 0) -> Reference:
        """The reference at a path or URL.

        Args:
            path: a store built by ``nucleate data build``.
            cache: folder under which arrays of the reference are kept, by the content hash of the store.
            seed: of the tenth that is held out where the store has no split.

        Raises:
            StoreError: there is no store, or it is empty.
        """
        store = Store.open(path)
        if not len(store):
            raise StoreError(
                f"The reference {store.location} holds no crystals: build it from another source"
            )
        return cls(store, cache, seed=seed)

    @property
    def content_hash(self) -> str:
        """Hash over all records of the store and the rule of its split."""
        return self.store.content_hash

    @cached_property
    def _held_out_split(self) -> str | None:
        counts = self.store.manifest.split_counts
        whole = self.store.manifest.num_records
        return next((name for name in HELD_OUT_SPLITS if 0 < counts.get(name, 0) < whole), None)

    @property
    def held_out_rule(self) -> str:
        """What is held out, in words for protocols."""
        if self._held_out_split is not None:
            return f"split {self._held_out_split} of the reference"
        return f"a tenth of the reference by hash of its ids (seed {self.seed})"

    @cached_property
    def _tenth(self) -> np.ndarray:
        chosen = []
        for batch in self.store.iter_batches(["id"]):
            for record_id in batch.column(0).to_pylist():
                digest = hashlib.blake2b(f"{self.seed}\x1f{record_id}".encode(), digest_size=8).digest()
                chosen.append(int.from_bytes(digest, "big") / 2.0**64 < HELD_OUT_SHARE)
        return np.array(chosen, dtype=bool)

    @cached_property
    def held_out(self) -> Store:
        """The records that are held out."""
        if self._held_out_split is not None:
            return self.store.split(self._held_out_split)
        return self.store.select(np.flatnonzero(self._tenth))

    @cached_property
    def train(self) -> Store:
        """The split ``train``; all that is not held out where the store has none."""
        if self._held_out_split is None:
            return self.store.select(np.flatnonzero(~self._tenth))
        if self.store.manifest.split_counts.get("train", 0):
            return self.store.split("train")
        return self.store.select(np.setdiff1d(self.store.rows, self.held_out.rows))

    def held_out_rows(self, n: int, seed: int) -> np.ndarray:
        """Indices in ``held_out`` of a sample of ``n`` without repetition, ascending; all where there are fewer."""
        total = len(self.held_out)
        if n >= total:
            return np.arange(total)
        return np.sort(np.random.default_rng([seed, total]).choice(total, size=n, replace=False))

    def held_out_candidates(self, n: int, seed: int) -> list[Candidate]:
        """A sample of the held-out part as candidates, encoded afresh from its cells like any other set."""
        return list(self._candidates(self.held_out_rows(n, seed)))

    def held_out_store(
        self, n: int, seed: int, *, on_progress: Callable[[int, int], None] | None = None
    ) -> CandidateStore:
        """The same sample on disk, written once beside what else is cached of this reference.

        Args:
            n: size of the sample; all held-out records where there are fewer.
            seed: of the sample.
            on_progress: called with candidates written and their number.
        """
        code = hashlib.blake2b(
            "".join(map(source_digest, CANDIDATE_CODE)).encode(), digest_size=8
        ).hexdigest()
        location = self.cache / f"held_out-{n}-{seed}-{self.seed}-{code}"
        folder = LocalFolder(location)
        if folder.exists(INDEX_FILE):
            with suppress(NucleateError):
                return CandidateStore.open(str(location))
        rows = self.held_out_rows(n, seed)
        parts: list[Part] = []
        for first in range(0, len(rows), PART_SIZE):
            part = list(self._candidates(rows[first : first + PART_SIZE], first))
            parts.append(write_part(folder, f"{len(parts):06d}.parquet", part))
            if on_progress is not None:
                on_progress(first + len(part), len(rows))
        write_index(folder, parts)
        return CandidateStore(str(location), parts)

    def _candidates(self, rows: np.ndarray, start: int = 0) -> Iterator[Candidate]:
        for row, index in enumerate(rows.tolist(), start):
            yield self._candidate(row, index)

    def _candidate(self, row: int, index: int) -> Candidate:
        record = self.held_out[index]
        given = {name: v for name, v in record.properties.items() if not isinstance(v, list)}
        return make_candidate(
            row,
            store_cell(self.held_out, index),
            id=record.id,
            file=f"{self.store.location} record {record.id}",
            given=given,
            symprec=SYMPREC,
        )

    def cached(self, name: str, build: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Arrays of the reference, kept under the content hash of its store, built where missing or damaged.

        Args:
            name: everything beside the store that the arrays depend on: what they are, of which part, which
                settings, which version of the code.
            build: makes them.
        """
        return cached_arrays(self.cache, name, build)
