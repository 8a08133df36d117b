"""The funnel: candidates in, step after step, one row per candidate out, with a reason for every one that left."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

import nucleate
from nucleate.errors import ScreeningError
from nucleate.evaluation.candidate_store import CandidateStore
from nucleate.evaluation.column import Column
from nucleate.evaluation.reading import Crystals, store_candidates
from nucleate.evaluation.scoring import Progress
from nucleate.evaluation.workers import Workers
from nucleate.screening.dedupe import bucket_keys, current_candidates, representatives
from nucleate.screening.drawing import draw_screening
from nucleate.screening.funnel_state import FunnelState, StepCount
from nucleate.screening.housekeeping import little_housekeeping
from nucleate.screening.journal import Journal
from nucleate.screening.output import RUN_FILE, ScreeningFolder
from nucleate.screening.pool import CandidatePool
from nucleate.screening.settings import DEDUPE, ScreeningSettings
from nucleate.screening.step import Step, make_step
from nucleate.screening.work import isolated_process, run_step

WORK_FOLDER = "work"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class ScreeningReport:
    """What came of a screening.

    Attributes:
        out: its folder.
        counts: what each step did, the reading of the input first.
        num_candidates: candidates, unreadable ones included.
        num_survivors: that passed all steps.
        num_known: verdicts that an earlier run had left.
        drawings: pictures that were drawn.
        seconds: time of this run.
    """

    out: Path
    counts: tuple[StepCount, ...]
    num_candidates: int
    num_survivors: int
    num_known: int
    drawings: tuple[Path, ...]
    seconds: float


def screen(
    crystals: Crystals,
    out: str | os.PathLike[str],
    settings: ScreeningSettings,
    *,
    workers: Workers | None = None,
    cache: str | os.PathLike[str] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> ScreeningReport:
    """Send candidates through the steps of a funnel; ``out`` then holds one row per candidate.

    Verdicts are kept crystal by crystal under a hash of crystal and step. A run that was stopped, whoever killed it,
    goes on where it stopped when it is repeated; other steps or settings reuse what they have in common.

    Args:
        crystals: what ``evaluation.reading.open_crystals`` takes.
        out: folder of the results.
        settings: steps and their settings.
        workers: processes to work with; this one and an isolated child by default.
        cache: folder of verdicts and energies, to share them between runs; ``work`` in ``out`` by default.
        on_progress: told how far the work is.

    Returns:
        What each step did.

    Raises:
        ScreeningError: another screening is in the folder, it is in use, or the disk is full.
        SourceError: there are no crystals to read.
        NucleateError: a potential or reference cannot be loaded.
        KeyboardInterrupt: with what is kept.
    """
    start = time.monotonic()
    folder = Path(out)
    work = folder / WORK_FOLDER if cache is None else Path(cache)
    tell = on_progress or _nobody
    asked = {"crystals": _name(crystals), **settings.to_json()}
    _check_folder(folder, asked)
    with _full_disk_said(work), _locked(folder, work):
        kept = str(work.resolve())
        resources = replace(settings.resources, cache=kept, scratch=str(work.resolve() / "scratch"))
        settings = replace(settings, resources=resources)
        workers = workers or Workers(1)
        with little_housekeeping(workers), workers as pool, _said_when_interrupted():
            state, journal, columns, known = _run(crystals, settings, work, pool, tell)
            tell(Progress("writing", 0, 1))
            results = ScreeningFolder(folder, state, journal, columns)
            survivors = results.write(pool)
        drawings = draw_screening(folder, state.counts, settings)
        report = ScreeningReport(
            folder,
            tuple(state.counts),
            len(state.pool),
            survivors,
            known,
            tuple(drawings),
            time.monotonic() - start,
        )
        results.write_run(
            {
                "asked": asked,
                "version": nucleate.__version__,
                "num_candidates": report.num_candidates,
                "num_survivors": survivors,
                "steps": [asdict(count) for count in report.counts],
                "seconds": round(report.seconds, 3),
            }
        )
        tell(Progress("writing", 1, 1))
        return report


def _run(
    crystals: Crystals,
    settings: ScreeningSettings,
    work: Path,
    workers: Workers,
    tell: Callable[[Progress], None],
) -> tuple[FunnelState, Journal, list[Column], int]:
    """How far every candidate came, the verdicts, the columns of the steps, and how many verdicts were there."""
    steps = {
        name: make_step(name, settings.of_step[name], settings.resources)
        for name in settings.steps
        if name != DEDUPE
    }
    digests = _digests(steps, settings, workers, tell)
    reading = store_candidates(
        crystals,
        str(work / "candidates"),
        symprec=settings.symprec,
        max_atoms=settings.max_atoms,
        workers=workers,
        on_progress=lambda done, total: tell(Progress("reading", done, total)),
    )
    state = FunnelState(CandidatePool.of(reading.candidates, work / "pool", workers))
    journal = Journal(work)
    known = len(journal)
    columns: list[Column] = []
    for name in settings.steps:
        if name == DEDUPE:
            _dedupe(reading.candidates, state, journal, settings, work, workers, tell)
        else:
            _do_step(steps[name], digests[name], state, journal, settings, workers, tell)
            columns += steps[name].columns
    return state, journal, columns, known


def _digests(
    steps: dict[str, Step], settings: ScreeningSettings, workers: Workers, tell: Callable[[Progress], None]
) -> dict[str, str]:
    """Digest of each step; it needs potential and reference, so what is wrong with them is said before any work."""
    digests = {}
    process = isolated_process(settings.timeout)
    for number, (name, step) in enumerate(steps.items()):
        tell(Progress("loading", number, len(steps), name))
        digests[name] = process.prepare(step)
    if steps:
        tell(Progress("loading", len(steps), len(steps)))
    if not workers.is_local:
        process.close()  # the workers have their own
    return digests


def _dedupe(
    given: CandidateStore,
    state: FunnelState,
    journal: Journal,
    settings: ScreeningSettings,
    work: Path,
    workers: Workers,
    tell: Callable[[Progress], None],
) -> None:
    """Take out copies among the crystals as they are now: as given, or as the steps so far have left them."""
    asked = settings.of_step[DEDUPE]
    name = DEDUPE if DEDUPE not in state.steps else f"{DEDUPE}-2"
    tell(Progress(name, 0, len(state.rows())))
    rows = np.arange(len(state.pool))
    candidates = given
    bucket = asked.bucket
    if state.keys:
        rows = state.rows()
        items = (item for _, item in state.stored(rows.tolist(), journal))
        candidates = current_candidates(items, work / "now", symprec=settings.symprec, workers=workers)
        bucket = asked.relaxed_bucket
    first = representatives(
        candidates,
        bucket_keys(candidates, bucket, workers),
        asked,
        work / DEDUPE,
        workers=workers,
        on_progress=lambda done, total: tell(Progress(name, done, total)),
    )
    representative = state.representative.copy()
    representative[rows] = np.where(first >= 0, rows[first], rows)
    state.take_duplicates(name, representative)


def _do_step(
    step: Step,
    digest: str,
    state: FunnelState,
    journal: Journal,
    settings: ScreeningSettings,
    workers: Workers,
    tell: Callable[[Progress], None],
) -> None:
    given = state.begin_step(step.name)
    keys = state.keys[step.name]
    order = given
    if getattr(step, "by_chemical_system", False):
        order = given[np.argsort(state.pool.systems[given], kind="stable")]
    done = 0

    def on_done(more: int) -> None:
        nonlocal done
        done += more
        tell(Progress(step.name, done, len(given)))

    def on_key(row: int, key: str) -> None:
        keys[row] = key.encode()

    tell(Progress(step.name, 0, len(given)))
    run_step(
        step,
        digest,
        state.stored(order.tolist(), journal),
        journal,
        workers=workers,
        timeout=settings.timeout,
        on_key=on_key,
        on_done=on_done,
    )
    state.end_step(step.name, given, journal)


def _nobody(progress: Progress) -> None:
    """Nobody is watching."""


def _name(crystals: Crystals) -> str:
    if isinstance(crystals, str | os.PathLike):
        return os.fspath(crystals)
    return f"{len(crystals)} structures"


def _check_folder(folder: Path, asked: dict[str, Any]) -> None:
    """Refuse a folder that holds something else.

    Raises:
        ScreeningError: it does.
    """
    run = folder / RUN_FILE
    if not folder.exists():
        return
    if not run.exists():
        strangers = sorted(
            p.name for p in folder.iterdir() if p.name not in (WORK_FOLDER, "crystals", "details")
        )
        ours = (folder / WORK_FOLDER).is_dir()
        if not ours and (strangers or (folder / "crystals").exists()):
            raise ScreeningError(
                f"{folder} is not empty and holds no screening ({', '.join(strangers[:5]) or 'crystals'}): name a new "
                "folder with --out"
            )
        return
    try:
        found = json.loads(run.read_text(encoding="utf-8"))["asked"]
        crystals, steps = found["crystals"], found["steps"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ScreeningError(f"{run} is not one of a screening: name a new folder with --out") from error
    if crystals != asked["crystals"]:
        raise ScreeningError(
            f"{folder} holds a screening ({', '.join(steps)}) of {crystals}, not of {asked['crystals']}: name another "
            "folder with --out"
        )


@contextmanager
def _locked(folder: Path, work: Path) -> Iterator[None]:
    """One run at a time in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    lock = FileLock(str(work / "lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ScreeningError(
            f"Another run is at work in {work}: wait for it, or name another folder"
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _said_when_interrupted() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt("what was finished is kept: repeat the command to go on.") from interrupt


@contextmanager
def _full_disk_said(work: Path) -> Iterator[None]:
    """Say that a disk is full in one sentence, whichever library noticed."""
    try:
        yield
    except Exception as error:
        if not any(number in _FULL for number in _errnos(error)):
            raise
        raise ScreeningError(
            f"The disk of {work} is full. What was finished is kept: make room there and repeat the command: it "
            "goes on where it stopped"
        ) from error


def _errnos(error: BaseException) -> Iterator[int]:
    """Error numbers of an error and of those that caused it."""
    following: BaseException | None = error
    while following is not None:
        number = getattr(following, "errno", None)
        if isinstance(number, int):
            yield number
        # An error that came from a worker has lost its cause, and kept its text.
        yield from (code for code in _FULL if os.strerror(code) in str(following))
        following = following.__cause__ or following.__context__
