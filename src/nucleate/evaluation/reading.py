"""Anybody's crystals as candidates: every input becomes one, and what cannot be read says why."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nucleate
from nucleate.data.folder import is_url, open_folder
from nucleate.data.record import Record, Rejection, Source, Task
from nucleate.data.sources import archive, open_source
from nucleate.data.sources.dataset import Dataset
from nucleate.data.sources.structure_files import NOT_READABLE, structure_format
from nucleate.errors import SourceError
from nucleate.evaluation.candidate import SYMPREC, Candidate, make_candidate
from nucleate.evaluation.candidate_store import (
    CANDIDATE_CODE,
    PART_SIZE,
    CandidateStore,
    Part,
    write_index,
    write_part,
)
from nucleate.evaluation.own_formats import GivenStructures, RunFolder, StoreSource, is_run_folder, is_store
from nucleate.evaluation.source_digest import source_digest
from nucleate.evaluation.workers import Workers

_READ_FOLDER = "read"
Crystals = str | os.PathLike[str] | Sequence[Any]


@dataclass(frozen=True)
class Ignored:
    """A file among the crystals that holds none: notes, tables, logs. It counts neither for nor against.

    Attributes:
        file: its path.
        reason: why nothing was read from it.
    """

    file: str
    reason: str


@dataclass(frozen=True)
class ReadingReport:
    """What became of the input.

    Attributes:
        candidates: the crystals, in the order of the input.
        num_unreadable: candidates that could not be read.
        num_refused: candidates that were read but are no crystals.
        ignored: files that hold no crystals.
        num_missing: candidates that are no input at all: test structures asked for of which no crystal came.
    """

    candidates: CandidateStore
    num_unreadable: int
    num_refused: int
    ignored: tuple[Ignored, ...]
    num_missing: int = 0


def open_crystals(crystals: Crystals, *, max_atoms: int = 1000) -> Source:
    """The source of what the user named.

    Args:
        crystals: a structure file, folder, archive, table (CSV, Parquet, extxyz, ASE database), a store, a
            folder of ``nucleate generate``, or a sequence of structures (pymatgen, ASE, UnitCell, Crystal).
        max_atoms: largest number of atoms per cell that is read.

    Raises:
        SourceError: there is nothing, or nothing that can be read.
    """
    if not isinstance(crystals, str | os.PathLike):
        if not len(crystals):
            raise SourceError("There are no structures to evaluate: the sequence is empty")
        return GivenStructures(crystals)
    spec = os.fspath(crystals)
    path = Path(os.path.expanduser(spec))
    if is_url(spec) or is_store(path):
        return StoreSource(spec if is_url(spec) else str(path), Dataset(path.name))
    if is_run_folder(path):
        return RunFolder(str(path), Dataset(path.name))
    return open_source(spec, max_atoms=max_atoms)


def read_candidates(
    crystals: Crystals, *, symprec: float = SYMPREC, max_atoms: int = 1000
) -> Iterator[Candidate]:
    """The candidates one after the other, without leaving anything on disk.

    Raises:
        SourceError: there is nothing to read.
    """
    plan = _plan(crystals, "", symprec, max_atoms)
    row = 0
    for task in plan.source.tasks():
        for item in plan.source.read(task):
            candidate = _candidate(plan, row, item)
            if isinstance(candidate, Candidate):
                yield candidate
                row += 1


@dataclass(frozen=True)
class _Plan:
    location: str
    source: Source
    in_folder: bool
    symprec: float
    max_atoms: int


@dataclass(frozen=True)
class _TaskResult:
    parts: tuple[Part, ...]
    num_unreadable: int
    num_refused: int
    ignored: tuple[Ignored, ...]

    @property
    def num(self) -> int:
        return sum(part.num for part in self.parts)


def store_candidates(
    crystals: Crystals,
    location: str,
    *,
    symprec: float = SYMPREC,
    max_atoms: int = 1000,
    workers: Workers | None = None,
    on_progress: Callable[[int, int | None], None] | None = None,
) -> ReadingReport:
    """The candidates on disk. What an interrupted call has read of unchanged files is not read again.

    Args:
        crystals: what ``open_crystals`` takes.
        location: folder to keep them in.
        symprec: tolerance of the encoding, Å.
        max_atoms: larger cells are not encoded.
        workers: processes to read with; this one by default.
        on_progress: called with candidates read and their number where it is known.

    Raises:
        SourceError: there is nothing to read.
    """
    plan = _plan(crystals, location, symprec, max_atoms)
    tasks = list(plan.source.tasks())
    settings = (
        f"{symprec!r} {max_atoms} {nucleate.__version__} {' '.join(map(source_digest, CANDIDATE_CODE))}"
    )
    jobs = [(fingerprint(task, settings), task) for task in tasks]
    results: dict[str, _TaskResult] = {}
    left: dict[str, Task] = {}
    for name, task in jobs:
        found = _finished(location, name)
        if found is None:
            left[name] = task
        else:
            results[name] = found
    counts = [task.count for task in tasks]
    total = None if any(count is None for count in counts) else sum(count or 0 for count in counts)
    done = sum(result.num for result in results.values())

    def tell(more: int) -> None:
        nonlocal done
        done += more
        if on_progress is not None:
            on_progress(done, None if total is None else max(total, done))

    tell(0)
    for (name, _), result in (workers or Workers(1)).completed(
        partial(_read_task, plan), left.items(), doing=lambda job: f"reading {job[1].file} ({job[1].key})"
    ):
        results[name] = result
        tell(result.num)
    ordered = [results[name] for name, _ in jobs]
    parts = [part for result in ordered for part in result.parts]
    ignored = tuple(item for result in ordered for item in result.ignored)
    if not parts:
        reason = f": {ignored[0].file}: {ignored[0].reason}" if ignored else ""
        raise SourceError(f"There are no crystals in {plan.source.name}{reason}")
    write_index(open_folder(location), parts)
    return ReadingReport(
        CandidateStore(location, parts),
        sum(result.num_unreadable for result in ordered),
        sum(result.num_refused for result in ordered),
        ignored,
    )


def _plan(crystals: Crystals, location: str, symprec: float, max_atoms: int) -> _Plan:
    in_folder = isinstance(crystals, str | os.PathLike) and os.path.isdir(os.path.expanduser(crystals))
    return _Plan(location, open_crystals(crystals, max_atoms=max_atoms), in_folder, symprec, max_atoms)


def fingerprint(task: Task, settings: str) -> str:
    """Hash over what reading a task would give: files by size and time of change, and how they are read."""
    files = [task.file, *task.details.get("files", ())]
    state = [task.key, task.first, task.count, task.problem, settings, *map(_file_state, files)]
    return hashlib.blake2b(json.dumps(state).encode(), digest_size=16).hexdigest()


def _file_state(path: str) -> tuple[str, int, int]:
    name = path.encode("utf-8", "backslashreplace").decode()
    try:
        state = os.stat(path)
    except OSError:
        return name, -1, -1
    # The time of a folder changes when a file is added beside those of this task, which changes nothing here.
    return (name, 0, 0) if os.path.isdir(path) else (name, state.st_size, state.st_mtime_ns)


def _finished(location: str, name: str) -> _TaskResult | None:
    folder = open_folder(location)
    entry = f"{_READ_FOLDER}/{name}.json"
    if not folder.exists(entry):
        return None
    try:
        content = json.loads(folder.read_bytes(entry))
        parts = tuple(Part(**part) for part in content["parts"])
        ignored = tuple(Ignored(**item) for item in content["ignored"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not all(folder.exists(part.file) for part in parts):
        return None
    return _TaskResult(parts, content["num_unreadable"], content["num_refused"], ignored)


def _read_task(plan: _Plan, job: tuple[str, Task]) -> _TaskResult:
    name, task = job
    folder = open_folder(plan.location)
    parts: list[Part] = []
    waiting: list[Candidate] = []
    ignored: list[Ignored] = []
    unreadable = refused = 0

    def flush() -> None:
        if waiting:
            parts.append(write_part(folder, f"{_READ_FOLDER}/{name}-{len(parts):04d}.parquet", waiting))
            waiting.clear()

    for item in plan.source.read(task):
        candidate = _candidate(plan, 0, item)
        if isinstance(candidate, Ignored):
            ignored.append(candidate)
            continue
        waiting.append(candidate)
        unreadable += candidate.unit_cell is None
        refused += candidate.unit_cell is not None and candidate.encoded is None
        if len(waiting) == PART_SIZE:
            flush()
    flush()
    result = _TaskResult(tuple(parts), unreadable, refused, tuple(ignored))
    folder.write_bytes(f"{_READ_FOLDER}/{name}.json", json.dumps(asdict(result)).encode())
    return result


def _holds_no_crystals(plan: _Plan, item: Rejection) -> bool:
    """Whether what was rejected is one of the other files that lie among crystals: notes, tables, logs.

    Also the file ``._NAME`` that macOS puts beside each ``NAME`` in archives and on foreign disks, whatever it is
    called: it holds attributes.
    """
    package, in_archive, member = item.file.rpartition("!")
    name = member or package
    if name.replace("\\", "/").rpartition("/")[2].startswith("._"):
        return bool(in_archive) or plan.in_folder
    if item.row is not None or structure_format(name) is not None or archive.is_archive(name):
        return False
    # What breaks off an archive is named after no file and is a loss.
    return item.reason == NOT_READABLE if in_archive else plan.in_folder


def _candidate(plan: _Plan, row: int, item: Record | Rejection) -> Candidate | Ignored:
    """The candidate of what a source gave, or a file that holds no crystals."""
    if isinstance(item, Rejection):
        if _holds_no_crystals(plan, item):
            return Ignored(item.file, item.reason)
        place = item.file if item.row is None else f"{item.file} row {item.row}"
        name = item.id or (Path(item.file).stem if item.row is None else f"{Path(item.file).stem}-{item.row}")
        return Candidate(row, name, place, None, None, item.reason)
    place = item.provenance.file
    if isinstance(item.provenance.row, int) and structure_format(place) is None:
        place = f"{place} row {item.provenance.row}"
    return make_candidate(
        row,
        item.structure,
        id=item.id,
        file=place,
        given=item.properties,
        symprec=plan.symprec,
        max_atoms=plan.max_atoms,
    )
