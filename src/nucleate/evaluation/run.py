"""``evaluate``: crystals from anywhere in, a report out; resumable, parallel, streaming."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from nucleate.data.sources.download import cache_folder
from nucleate.data.sources.file_collection import FileCollection
from nucleate.errors import ConfigError, NucleateError
from nucleate.evaluation.asked_targets import AskedTargets, target_ids, with_missing
from nucleate.evaluation.candidate import SYMPREC
from nucleate.evaluation.candidate_store import CandidateStore
from nucleate.evaluation.compare import Comparison, compare_reports
from nucleate.evaluation.family import FAMILIES, check_names
from nucleate.evaluation.own_formats import is_run_folder, run_seconds
from nucleate.evaluation.property_targets import FAMILY, PropertyTarget, score_properties
from nucleate.evaluation.reading import Crystals, open_crystals, store_candidates
from nucleate.evaluation.reference import Reference
from nucleate.evaluation.report import SUMMARY_FILE, Report
from nucleate.evaluation.scoring import Progress, Score, Scoring
from nucleate.evaluation.settings import Settings
from nucleate.evaluation.summary import FORMAT, make_report
from nucleate.evaluation.workers import Workers

WORK_FOLDER = "work"
INTERRUPTED = "interrupted: repeat the command to go on"


def evaluate(
    crystals: Crystals,
    reference: str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    metrics: Sequence[str] | None = None,
    settings: Settings | None = None,
    samples: int | None = None,
    targets: AskedTargets | None = None,
    seed: int = 0,
    workers: int = 1,
    scheduler: str | None = None,
    cache: str | os.PathLike[str] | None = None,
    max_atoms: int = 1000,
    properties: Sequence[PropertyTarget] = (),
    generation_seconds: float | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Report:
    """How good crystals are: one row per crystal, then averages with intervals and ceilings.

    Killed at any moment, the same call with the same ``out`` goes on where it stopped: what was read and every
    finished chunk of rows is kept in ``out/work`` under a hash of input, settings and code. Ctrl-C also leaves a
    report on the families that are done.

    Args:
        crystals: a structure file, folder, archive, table, store, folder of ``nucleate generate``, or a sequence
            of structures (pymatgen, ASE, UnitCell, Crystal).
        reference: a store built by ``nucleate data build``; without one only what needs none is measured.
        out: folder of the report; without one nothing is written and nothing can be resumed.
        metrics: families of metrics, all of them unless given.
        settings: thresholds and tolerances.
        samples: samples per test structure in crystal structure prediction; short for that field of ``settings``.
        targets: test structures that predictions were asked for, so that those of which no crystal came count as
            failures: ``held-out`` for all held-out records of the reference, a text file with an id per line, or ids.
        seed: of everything random.
        workers: processes; 1 works in this process, more start a local Dask cluster.
        scheduler: address of a running Dask scheduler to use instead.
        cache: folder for what is kept of references; ``NUCLEATE_CACHE`` or the user's cache folder by default.
        max_atoms: larger cells are not encoded.
        properties: properties that were asked for, with what predicts them.
        generation_seconds: time the crystals took to make, for sample efficiency against compute; by default what a
            folder of ``nucleate generate`` states.
        on_progress: told how far it is.

    Returns:
        The report. A family that could not run stands in ``problems`` with its reason; the others ran.

    Raises:
        SourceError: there are no crystals to read.
        StoreError: there is no such reference.
        ConfigError: a family or a setting does not exist or cannot be.
        NucleateError: ``out`` holds something else, or another process is writing to it.
    """
    began = time.monotonic()
    names = check_names(metrics if metrics is not None else tuple(FAMILIES))
    chosen = settings or Settings()
    if samples is not None:
        chosen = replace(chosen, samples=samples)
    kept = Path(cache) if cache is not None else cache_folder() / "evaluation"
    yardstick = None if reference is None else Reference.open(reference, kept, seed=seed)
    if targets is not None and yardstick is None:
        raise ConfigError("The test structures asked for are records of a reference: name it too")
    asked = None if targets is None or yardstick is None else target_ids(targets, yardstick)
    source = source_name(crystals)
    opened = open_crystals(crystals, max_atoms=max_atoms)  # what is not there should leave no folder behind
    if out is not None and isinstance(opened, FileCollection):
        _refuse_inside(Path(out), Path(opened.path))
    with _folder(out, source) as work, Workers(workers, scheduler) as pool, _interruptible(out):
        tell = on_progress or (lambda progress: None)
        reading = store_candidates(
            crystals,
            str(work / "candidates"),
            symprec=SYMPREC,
            max_atoms=max_atoms,
            workers=pool,
            on_progress=lambda done, total: tell(Progress("reading", done, total)),
        )
        if asked is not None and yardstick is not None:
            reading = with_missing(reading, asked, yardstick)
        shared: dict[str, Any] = {
            "settings": chosen,
            "seed": seed,
            "reference": yardstick,
            "cache_folder": kept,
            "workers": pool,
            "on_progress": tell,
        }
        ours = Scoring(reading.candidates, folder=work, **shared)
        held_out, theirs = None, None
        if yardstick is not None:
            held_out = _held_out(yardstick, chosen, seed, tell)
            theirs = Scoring(held_out, folder=yardstick.cache / "scores", subject="held_out", **shared)

        def report_now(asked: Sequence[str]) -> Report:
            return make_report(
                reading,
                ours.score,
                None if theirs is None else theirs.score,
                source=source,
                names=asked,
                reference=yardstick,
                settings=chosen,
                seed=seed,
                seconds=time.monotonic() - began,
                generation_seconds=(
                    _generation_seconds(crystals) if generation_seconds is None else generation_seconds
                ),
            )

        try:
            for name in names:
                ours.compute(name)
                if theirs is not None:
                    theirs.add(name)
                ours.average(name, None if theirs is None else theirs.score.table)
            if properties:
                tell(Progress(FAMILY, 0, None))
                _add_properties(ours.score, properties, reading.candidates, held_out, chosen, seed)
        except KeyboardInterrupt:
            for name in names:
                ours.average(name)
            if out is not None and ours.score.metrics:
                for name in names:
                    if name not in ours.score.metrics:
                        ours.score.problems.setdefault(name, INTERRUPTED)
                report_now(names).write(out)
            raise
        report = report_now((*names, FAMILY) if properties else names)
        if out is not None:
            tell(Progress("writing", 0, None))
            report.write(out)
    return report


def evaluate_two(
    first: Crystals,
    second: Crystals,
    reference: str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> Comparison:
    """Two sets under one protocol, and how much they differ.

    Args:
        first: as for ``evaluate``.
        second: as for ``evaluate``.
        reference: as for ``evaluate``.
        out: folder: the reports go into ``first`` and ``second`` below it, the comparison beside them.
        on_progress: told how far it is, stages named by the set.
        options: the other arguments of ``evaluate``, the same for both sets.

    Raises:
        NucleateError: as for ``evaluate``.
    """
    reports = []
    for which, crystals in (("first", first), ("second", second)):
        tell = None if on_progress is None else _labelled(on_progress, which)
        folder = None if out is None else Path(out) / which
        reports.append(evaluate(crystals, reference, out=folder, on_progress=tell, **options))
    resamples = int(reports[0].about["settings"]["resamples"])
    comparison = compare_reports(*reports, seed=int(options.get("seed", 0)), resamples=resamples)
    if out is not None:
        comparison.write(out)
    return comparison


def _labelled(on_progress: Callable[[Progress], None], label: str) -> Callable[[Progress], None]:
    def tell(state: Progress) -> None:
        on_progress(replace(state, stage=f"{label}: {state.stage}"))

    return tell


def _add_properties(
    score: Score,
    properties: Sequence[PropertyTarget],
    candidates: CandidateStore,
    held_out: CandidateStore | None,
    settings: Settings,
    seed: int,
) -> None:
    """What the user's predictors say, beside what the families found."""
    score.table, columns, metrics = score_properties(
        properties, candidates, score.table, held_out=held_out, seed=seed, resamples=settings.resamples
    )
    score.columns += columns
    score.metrics[FAMILY] = metrics


def _held_out(
    reference: Reference, settings: Settings, seed: int, tell: Callable[[Progress], None]
) -> CandidateStore:
    """A held-out sample of the reference, kept beside what is cached of it."""
    return reference.held_out_store(
        settings.reference_sample,
        seed,
        on_progress=lambda done, total: tell(Progress("reading the reference", done, total)),
    )


def source_name(crystals: Crystals) -> str:
    """What is evaluated, as the user would say it."""
    if isinstance(crystals, str | os.PathLike):
        spec = os.fspath(crystals)
        # samples and samples/ are one set
        return os.path.normpath(spec) if os.path.exists(os.path.expanduser(spec)) else spec
    return f"{len(crystals):,} structures in memory"


def _generation_seconds(crystals: Crystals) -> float | None:
    if not isinstance(crystals, str | os.PathLike) or not is_run_folder(Path(crystals)):
        return None
    return run_seconds(Path(crystals))


@contextmanager
def _folder(out: str | os.PathLike[str] | None, source: str) -> Iterator[Path]:
    """The folder of finished work, locked; a temporary one where nothing is to be written."""
    from filelock import FileLock, Timeout  # noqa: PLC0415  (only needed when work begins)

    if out is None:
        with tempfile.TemporaryDirectory(prefix="nucleate-evaluate-") as scratch:
            yield Path(scratch)
        return
    path = Path(out)
    _refuse_strangers(path, source)
    work = path / WORK_FOLDER
    work.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(work / "lock", timeout=0):
            yield work
    except Timeout as error:
        raise NucleateError(
            f"Another process is evaluating into {path}: wait for it, or name another folder"
        ) from error


def _refuse_inside(out: Path, crystals: Path) -> None:
    """The tables of a report among the crystals would be read as crystals the next time."""
    if crystals.is_dir() and out.resolve().is_relative_to(crystals.resolve()):
        raise NucleateError(
            f"The report {out} would lie among the crystals of {crystals}: name a folder outside"
        )


def _refuse_strangers(path: Path, source: str) -> None:
    if path.exists() and not path.is_dir():
        raise NucleateError(f"{path} is a file: name a folder for the report")
    summary = path / SUMMARY_FILE
    if summary.exists():
        try:
            about = json.loads(summary.read_text(encoding="utf-8"))["about"]
            if about["format"] != FORMAT:
                raise KeyError(about["format"])
            there = about["crystals"]["source"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NucleateError(f"{summary} is not a report of nucleate: name another folder") from error
        if there != source:
            raise NucleateError(
                f"{path} holds the report on {there}, not on {source}: name another folder, or remove it first"
            )
    elif path.is_dir() and not (path / WORK_FOLDER).is_dir() and any(path.iterdir()):
        names = ", ".join(sorted(item.name for item in path.iterdir())[:5])
        raise NucleateError(f"{path} is not empty and holds no report ({names}): name a new folder")


@contextmanager
def _interruptible(out: str | os.PathLike[str] | None) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if out is None:
            raise
        raise KeyboardInterrupt(
            f"what is done is kept in {os.fspath(out)}: repeat the command to go on."
        ) from interrupt
