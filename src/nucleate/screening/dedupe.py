"""The step ``dedupe``: each crystal once. Crystals meet in buckets, and are compared inside one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from nucleate.evaluation.candidate_store import CandidateStore
from nucleate.evaluation.context import cached_arrays
from nucleate.evaluation.set_matching import match_set
from nucleate.evaluation.workers import Workers
from nucleate.screening.pool import CandidatePool
from nucleate.screening.settings import DedupeSettings
from nucleate.screening.step import settings_digest
from nucleate.shapes import Int

VERSION = "dedupe-1"


def representatives(
    candidates: CandidateStore,
    pool: CandidatePool,
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
        pool: the same, with their keys.
        settings: bucket and tolerances.
        folder: where finished blocks are kept.
        workers: where crystals are compared.
        on_progress: told (rows done, rows).
    """
    keys = pool.bucket_keys if settings.bucket == "prototype" else pool.formula_keys
    state = settings_digest("dedupe", VERSION, asdict(settings), candidates.digest)

    def kept(number: int, build: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        return cached_arrays(folder, f"dedupe-{number}-{state}", build)

    return match_set(
        candidates, keys, settings.matcher(), map=workers.map, kept=kept, on_progress=on_progress
    ).representative
