"""One set of candidates scored by families of metrics: rows chunk by chunk, across the set, then averages."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from nucleate.data.folder import LocalFolder
from nucleate.errors import NucleateError
from nucleate.evaluation.candidate_store import CandidateStore, Part
from nucleate.evaluation.column import Column
from nucleate.evaluation.context import Context
from nucleate.evaluation.family import MetricFamily, code_digest, load_family, missing_extra
from nucleate.evaluation.metric import Metric
from nucleate.evaluation.reference import Reference
from nucleate.evaluation.settings import Settings
from nucleate.evaluation.workers import Workers

Subject = Literal["crystals", "held_out"]


@dataclass(frozen=True)
class Progress:
    """How far an evaluation is.

    Attributes:
        stage: what is being done: ``reading``, ``validity``, ``held-out novelty``.
        done: crystals done in this stage, or steps of it.
        total: their number, None where unknown.
        note: what a family says of its work across the set.
    """

    stage: str
    done: int
    total: int | None
    note: str = ""


@dataclass(frozen=True)
class Task:
    """What a worker needs to score chunks of one family; small and picklable.

    Attributes:
        family: name of the family.
        folder: where results are kept.
        location: where the candidates are.
        settings: thresholds and tolerances.
        seed: of everything random.
        reference: location of the reference, None without one.
        cache: folder of what is kept of references.
        subject: which set it is.
    """

    family: str
    folder: str
    location: str
    settings: Settings
    seed: int
    reference: str | None
    cache: str
    subject: Subject

    def context(self) -> Context:
        """What the family sees in a worker."""
        reference = None if self.reference is None else _reference(self.reference, self.cache, self.seed)
        return Context(reference, self.settings, self.seed, Path(self.folder) / "arrays", self.subject)


@dataclass(frozen=True)
class Chunk:
    """Candidates of one part that are scored together.

    Attributes:
        part: the part.
        first: place of the first of them in the part.
        count: how many.
        start: row of the first candidate of the part.
        file: name of the result.
    """

    part: Part
    first: int
    count: int
    start: int
    file: str


@cache
def _reference(location: str, cache_folder: str, seed: int) -> Reference:
    return Reference.open(location, Path(cache_folder), seed=seed)


_family = cache(load_family)


@lru_cache(maxsize=2)
def _part(location: str, part: Part, start: int) -> CandidateStore:
    """A part that stays decoded while its chunks are scored one after the other."""
    return CandidateStore(location, [part], start=start)


def score_chunk(task: Task, chunk: Chunk) -> int:
    """Number of candidates of a chunk, whose rows are then on disk."""
    family = _family(task.family)
    candidates = _part(task.location, chunk.part, chunk.start).slice(chunk.first, chunk.count)
    rows = family.rows(candidates, task.context())
    table = rows_table(family, rows, len(candidates))
    with LocalFolder(Path(task.folder)).writing(chunk.file) as path:
        pq.write_table(table, path, compression="zstd")
    return len(candidates)


def rows_table(family: MetricFamily, rows: Sequence[Mapping[str, Any]], count: int) -> pa.Table:
    """The rows of a family as a table of the columns it declares, null where a row has no value.

    Raises:
        NucleateError: another number of rows, a column that was not declared, or a value of another type.
    """
    if len(rows) != count:
        raise NucleateError(f"The metrics {family.name!r} gave {len(rows)} rows for {count} crystals")
    declared = {column.name for column in family.columns}
    strangers = sorted({name for row in rows for name in row} - declared)
    if strangers:
        raise NucleateError(
            f"The metrics {family.name!r} gave columns they do not declare: {', '.join(strangers)}"
        )
    present = {name for row in rows for name in row}
    return (
        pa.table(
            {
                c.name: _array(family, c, [row.get(c.name) for row in rows])
                for c in family.columns
                if c.name in present
            }
        )
        if present
        else pa.table({"": pa.nulls(count)})
    )


def _array(family: MetricFamily, column: Column, values: Sequence[Any]) -> pa.Array:
    try:
        return pa.array(values, type=column.type, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise NucleateError(
            f"The metrics {family.name!r} gave values for {column.name!r} that are no {column.type}: {error}"
        ) from error


@dataclass
class Score:
    """What came of scoring a set.

    Attributes:
        table: one row per candidate, with the columns of all families that ran.
        columns: those columns, base columns left out.
        metrics: the averages, by family.
        problems: why a family gave none, by its name.
    """

    table: pa.Table
    columns: list[Column] = field(default_factory=list)
    metrics: dict[str, list[Metric]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


class Scoring:
    """A set that is scored family by family; ``score`` holds what is done so far.

    Args:
        candidates: the set.
        folder: where finished chunks are kept.
        settings: thresholds and tolerances.
        seed: of everything random.
        reference: what the set is compared with.
        cache_folder: where what is computed of references is kept.
        workers: processes.
        subject: whether this is the set itself or the held-out sample of the reference.
        on_progress: told after every chunk.
    """

    def __init__(
        self,
        candidates: CandidateStore,
        *,
        folder: Path,
        settings: Settings,
        seed: int,
        reference: Reference | None,
        cache_folder: Path,
        workers: Workers,
        subject: Subject = "crystals",
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self.candidates, self.reference, self.workers = candidates, reference, workers
        self.on_progress, self.subject = on_progress, subject
        self.score = Score(candidates.base_table())
        self._before = hashlib.blake2b(digest_size=16)
        self._computed: dict[str, tuple[_FamilyRun, pa.Table]] = {}
        self._task = Task(
            "",
            str(folder),
            candidates.location,
            settings,
            seed,
            None if reference is None else reference.store.location,
            str(cache_folder),
            subject,
        )

    def add(self, name: str) -> None:
        """Score the set by one more family; one that fails is named with its reason in ``score.problems``."""
        self.compute(name)
        self.average(name)

    def compute(self, name: str) -> None:
        """The rows of one more family and its columns across the set, without averages; ``average`` makes these."""
        try:
            family = _family(name)
            if self.subject == "held_out" and not family.scores_reference:
                return
            task = replace(self._task, family=name)
            run = _FamilyRun(family, task, self.candidates, self.reference, self.workers, self.on_progress)
            self._before.update(run.across_key.encode())
            table = _joined(self.score.table, run.rows())
            self._computed[name] = run, _joined(table, run.across(table, self._before.hexdigest()))
        except Exception as error:
            # One family that fails must not cost the others; its finished chunks are kept.
            self.score.problems[name] = _problem(name, error)

    def average(self, name: str, held_out_rows: pa.Table | None = None) -> None:
        """The averages of a family that was computed; nothing for one that was not, or already has them.

        Args:
            name: the family.
            held_out_rows: rows of the held-out sample, for averages that need them (``Context.held_out_rows``).
        """
        if name not in self._computed:
            return
        run, table = self._computed.pop(name)
        try:
            metrics = list(run.family.summary(table, replace(run.context, held_out_rows=held_out_rows)))
        except Exception as error:
            # as above
            self.score.problems[name] = _problem(name, error)
            return
        self.score.table = table
        self.score.columns += run.family.columns
        self.score.metrics[name] = metrics


def score(candidates: CandidateStore, names: Sequence[str], **options: Any) -> Score:
    """The set scored by these families, in this order; ``options`` are those of ``Scoring``."""
    scoring = Scoring(candidates, **options)
    for name in names:
        scoring.add(name)
    return scoring.score


def _problem(name: str, error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] != "nucleate":
        return str(missing_extra(name, error.name or str(error)))
    if isinstance(error, NucleateError | OSError):
        return " ".join(str(error).split())
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else ""
    return f"Bug in the metrics {name!r}{place}: {type(error).__name__}: {' '.join(str(error).split())}"


def _joined(table: pa.Table, other: pa.Table) -> pa.Table:
    for name in other.column_names:
        if name:
            where = table.column_names.index(name) if name in table.column_names else None
            table = (
                table.append_column(name, other.column(name))
                if where is None
                else table.set_column(where, name, other.column(name))
            )
    return table


class _FamilyRun:
    """One family over one set: which chunks there are, which are done, and the rest."""

    def __init__(
        self,
        family: MetricFamily,
        task: Task,
        candidates: CandidateStore,
        reference: Reference | None,
        workers: Workers,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self.family, self.task, self.candidates = family, task, candidates
        self.reference, self.workers, self.on_progress = reference, workers, on_progress
        self.folder = LocalFolder(Path(task.folder))
        self.key = self._key()
        self.across_key = f"{self.key} {task.settings.digest(family.uses_across)}"
        self.stage = family.name if task.subject == "crystals" else f"held-out {family.name}"
        self.context = Context(
            reference,
            task.settings,
            task.seed,
            Path(task.folder) / "arrays",
            task.subject,
            report_progress=lambda done, total, note: self._tell(done, total, note),
            mapper=workers.map,
        )

    def _key(self) -> str:
        uses = [name for name in self.family.uses if name != "seed"]
        known = [
            self.family.name,
            code_digest(self.family),
            self.task.settings.digest(uses),
            str(self.task.seed) if "seed" in self.family.uses else "",
            self.reference.content_hash if self.reference and self.family.uses_reference else "",
            self.task.subject,
        ]
        return hashlib.blake2b("\x1f".join(known).encode(), digest_size=16).hexdigest()

    def _tell(self, done: int, total: int | None, note: str = "") -> None:
        if self.on_progress is not None:
            self.on_progress(Progress(self.stage, done, total, note))

    def chunks(self) -> Iterator[Chunk]:
        """All chunks, in the order of the rows."""
        start = 0
        for part in self.candidates.parts:
            for first in range(0, part.num, self.family.chunk):
                count = min(self.family.chunk, part.num - first)
                text = f"{self.key} {part.digest} {first} {count}"
                name = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
                yield Chunk(part, first, count, start, f"rows/{self.family.name}/{name[:2]}/{name}.parquet")
            start += part.num

    def rows(self) -> pa.Table:
        """The rows of all candidates: finished chunks as they are, the others computed now."""
        chunks = list(self.chunks())
        left = {c.file: c for c in chunks if not self.folder.exists(c.file)}
        done = len(self.candidates) - sum(chunk.count for chunk in left.values())
        self._tell(done, len(self.candidates))
        finished = self.workers.completed(
            partial(score_chunk, self.task),
            left.values(),
            doing=lambda c: (
                f"scoring {self.stage} of rows {c.start + c.first} to {c.start + c.first + c.count - 1}"
            ),
        )
        for _, count in finished:
            done += count
            self._tell(done, len(self.candidates))
        return self._assembled(chunks)

    def _assembled(self, chunks: Sequence[Chunk]) -> pa.Table:
        schema = pa.schema([(c.name, c.type) for c in self.family.columns])
        tables = []
        for chunk in chunks:
            try:
                part = pq.read_table(self.folder.open(chunk.file))
            except (OSError, pa.ArrowException) as error:
                self.folder.remove(chunk.file)
                raise NucleateError(
                    f"{chunk.file} was damaged ({error}) and is removed: repeat the command to compute it again"
                ) from error
            arrays = [
                part.column(f.name) if f.name in part.column_names else pa.nulls(chunk.count, f.type)
                for f in schema
            ]
            tables.append(pa.table(arrays, schema=schema))
        return pa.concat_tables(tables).combine_chunks()

    def across(self, table: pa.Table, before: str) -> pa.Table:
        """The columns that need the whole set, as they were or computed now."""
        # Across the set a family may look at anything: also at the reference and at random numbers.
        known = self.reference.content_hash if self.reference else ""
        text = f"{before} {self.candidates.digest} {known} {self.task.seed}"
        name = (
            f"across/{self.family.name}-{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}.parquet"
        )
        if self.folder.exists(name):
            try:
                return pq.read_table(self.folder.open(name))
            except (OSError, pa.ArrowException):
                self.folder.remove(name)
        found = self.family.across(self.candidates, table, self.context)
        types = {column.name: column for column in self.family.columns}
        strangers = sorted(set(found) - set(types))
        wrong = [n for n, values in found.items() if len(values) != len(self.candidates)]
        if strangers or wrong:
            raise NucleateError(
                f"The metrics {self.family.name!r} gave columns across the set that they do not declare or that "
                f"are of another length: {', '.join(strangers + wrong)}"
            )
        columns = {n: _array(self.family, types[n], list(values)) for n, values in found.items()}
        result = pa.table(columns) if columns else pa.table({"": pa.nulls(len(self.candidates))})
        with self.folder.writing(name) as path:
            pq.write_table(result, path, compression="zstd")
        return result
