"""The step ``dedupe``: each crystal once. Crystals meet in buckets, and are compared inside one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from nucleate.data.folder import LocalFolder
from nucleate.evaluation.cached_arrays import cached_arrays
from nucleate.evaluation.candidate import make_candidate
from nucleate.evaluation.candidate_store import PART_SIZE, CandidateStore, Part, write_part
from nucleate.evaluation.formula_index import crystal_keys
from nucleate.evaluation.set_matching import match_set
from nucleate.evaluation.workers import Workers
from nucleate.screening.parcels import map_in_parcels
from nucleate.screening.settings import DedupeSettings
from nucleate.screening.step import settings_digest
from nucleate.screening.stored_item import StoredItem
from nucleate.shapes import Int

VERSION = "dedupe-1"
_PARTS = 16  # of the store, for whose keys a worker is asked at once


def representatives(
    candidates: CandidateStore,
    keys: Int[np.ndarray, "rows"],
    settings: DedupeSettings,
    folder: Path,
    *,
    workers: Workers,
    on_progress: Callable[[int, int], None],
) -> Int[np.ndarray, "rows"]:
    """For each row the row of the first crystal that it is a copy or a mirror image of, itself for a first one; -1
    for rows that are no crystal.

    Only crystals with the same bucket key are compared, by StructureMatcher's rules (``evaluation.set_matching``), in
    blocks that are streamed; a finished block is kept.

    Args:
        candidates: the crystals in the cells they came in.
        keys: key of each row's bucket.
        settings: bucket and tolerances.
        folder: where finished blocks are kept.
        workers: where crystals are compared.
        on_progress: told (rows done, rows).
    """
    tolerances = asdict(settings.matcher())
    content = hashlib.blake2b(np.ascontiguousarray(keys).tobytes(), digest_size=16).hexdigest()
    state = settings_digest("dedupe", VERSION, tolerances, candidates.digest, content)

    def kept(number: int, build: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        return cached_arrays(folder, f"dedupe-{number}-{state}", build)

    return match_set(
        candidates,
        keys,
        settings.matcher(),
        map=partial(map_in_parcels, workers),
        kept=kept,
        on_progress=on_progress,
    ).representative


def bucket_keys(candidates: CandidateStore, bucket: str, workers: Workers) -> Int[np.ndarray, "rows"]:
    """Key of each row's bucket, ``NO_FORMULA`` where there is no crystal; see ``DedupeSettings``."""
    name = "bucket_key" if bucket == "prototype" else "formula"
    parts = candidates.parts
    some = [parts[first : first + _PARTS] for first in range(0, len(parts), _PARTS)]
    found = map_in_parcels(workers, partial(_keys, candidates.location, name), some)
    return np.concatenate([np.zeros(0, dtype=np.int64), *found])


def _keys(location: str, name: str, parts: Sequence[Part]) -> Int[np.ndarray, "rows"]:
    """Keys of the crystals in some parts of a store."""
    tables = CandidateStore(location, parts).iter_columns(["is_encoded", name])
    return np.concatenate([crystal_keys(table, name) for _, table in tables])


def current_candidates(
    items: Iterable[StoredItem], folder: Path, *, symprec: float, workers: Workers
) -> CandidateStore:
    """Crystals as the steps so far have left them, encoded again, so that those that became equal have one key.

    Args:
        items: the candidates, in order.
        folder: where they are kept; a part that is there from an earlier run is not made again.
        symprec: tolerance of the encoding, Å.
        workers: where they are encoded.
    """
    parts = map_in_parcels(workers, partial(_part, str(folder.resolve()), symprec), _parts(items))
    return CandidateStore(str(folder), list(parts))


def _parts(items: Iterable[StoredItem]) -> Iterator[list[StoredItem]]:
    waiting = iter(items)
    while some := list(islice(waiting, PART_SIZE)):
        yield some


def _part(folder: str, symprec: float, items: Sequence[StoredItem]) -> Part:
    """The part of these candidates, on disk."""
    place = LocalFolder(Path(folder))
    state = hashlib.blake2b(f"{VERSION} {symprec!r}".encode(), digest_size=16)
    for item in items:
        for text in (item.line, *item.verdicts):
            state.update(hashlib.blake2b(text, digest_size=16).digest())
    name = state.hexdigest()
    note = f"{name}.json"
    if place.exists(note):
        return Part(**json.loads(place.read_bytes(note)))
    candidates = []
    for item in items:
        cell = item.item().crystal.unit_cell("primitive")
        candidates.append(
            make_candidate(0, cell, id=item.given["id"], file=item.given["file"], symprec=symprec)
        )
    part = write_part(place, f"{name}.parquet", candidates)
    place.write_bytes(note, json.dumps(asdict(part)).encode())
    return part
