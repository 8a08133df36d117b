"""Building a store: every record of a source encoded, in parallel, in bounded memory, resumable anywhere."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import nucleate
from nucleate.data.assembly import assemble, tidy
from nucleate.data.build_job import BuildPlan, JoinedTable
from nucleate.data.cleaning import EncodingSettings
from nucleate.data.execution import run_in_process, run_on_dask
from nucleate.data.folder import Folder, LocalFolder, open_folder
from nucleate.data.journal import Journal
from nucleate.data.manifest import BUILD_FOLDER, MANIFEST_FILE, SHARD_FOLDER, Manifest, read_manifest
from nucleate.data.property_table import table_fingerprint
from nucleate.data.record import Task
from nucleate.data.schema import SCHEMA_VERSION
from nucleate.data.sources import open_source
from nucleate.data.split import SplitRule
from nucleate.errors import StoreError

SETTINGS_FILE = f"{BUILD_FOLDER}/settings.json"
LOCK_FILE = f"{BUILD_FOLDER}/lock"

# Options that open a door and do not decide what is behind it: they are never written down.
SECRET_OPTIONS = frozenset({"api_key"})


@dataclass(frozen=True)
class BuildProgress:
    """How far a build is.

    Attributes:
        num_records: records stored.
        num_left_out: inputs left out.
        total: inputs of the source, None where only reading tells.
        resumed: inputs an interrupted build had done already.
    """

    num_records: int
    num_left_out: int
    total: int | None
    resumed: int

    @property
    def done(self) -> int:
        """Inputs dealt with."""
        return self.num_records + self.num_left_out


@dataclass(frozen=True)
class BuildReport:
    """What a build made.

    Attributes:
        location: path or URL of the store.
        manifest: everything about the store.
        num_resumed: inputs that an interrupted build had done already; all of them where the store was
            complete.
        seconds: time this call took.
    """

    location: str
    manifest: Manifest
    num_resumed: int
    seconds: float

    @property
    def num_records(self) -> int:
        """Records in the store."""
        return self.manifest.num_records

    @property
    def num_rejected(self) -> int:
        """Inputs left out, each with its reason in ``rejected.csv``."""
        return self.manifest.num_rejected

    @property
    def content_hash(self) -> str:
        """Hash over all records and the rule of the split."""
        return self.manifest.content_hash

    def remarks(self) -> list[str]:
        """What a user should know about the store, one sentence each; empty where there is nothing."""
        remarks = []
        for path, table in self.manifest.tables.items():
            if count := table["records_without_row"]:
                remarks.append(
                    f"{count:,} records have no row in {path}: {_named(table['ids_without_row'], count)}."
                )
            if count := table["rows_without_record"]:
                left_out = table["rows_of_left_out_records"]
                why = f" ({left_out:,} of them belong to inputs left out)" if left_out else ""
                named = _named(table["ids_without_record"], count)
                remarks.append(f"{count:,} rows of {path} have no record{why}: {named}.")
        for name, column in self.manifest.properties.items():
            if column.units_seen:
                remarks.append(
                    f"Property {name} comes in several units ({', '.join(column.units_seen)}): convert it."
                )
        if count := self.manifest.split_counts.get("unassigned", 0):
            remarks.append(
                f"{count:,} records have no value of the column that decides their split: 'unassigned'."
            )
        sites = self.manifest.site_properties
        if sites and not sites["stored"] and (count := sites["records"]):
            names = ", ".join(name for name in sites["by_name"] if name != "label")
            remarks.append(
                f"Site properties of {count:,} records ({names}) are not stored: "
                "build with --keep-frame (keep_frame=True) to keep them."
            )
        return remarks


def build_store(
    source_spec: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    properties_table: str | os.PathLike[str] | None = None,
    properties_id_column: str | None = None,
    split: str = "random",
    split_column: str | None = None,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    workers: int = 1,
    scheduler: str | None = None,
    symprec: float = 0.01,
    max_atoms: int = 1000,
    max_displacement: float | None = None,
    max_strain: float | None = None,
    keep_frame: bool = False,
    pseudo_symmetry: bool = False,
    source_options: Mapping[str, Any] | None = None,
    on_progress: Callable[[BuildProgress], None] | None = None,
) -> BuildReport:
    """The store of every record of a source that is a crystal, and what was left out and why.

    Killed at any moment, the same call goes on where it stopped and gives the store an uninterrupted one
    gives. The content hash does not depend on the number of workers.

    Args:
        source_spec: what ``open_source`` reads: a file, folder, archive, or ``jarvis:dft_3d`` and the like.
        out: new folder, or fsspec URL (``s3://bucket/store``).
        properties_table: CSV or Parquet file of properties, joined by id; ``band_gap (eV)`` names a unit.
        properties_id_column: its column of ids, found by name unless given.
        split: ``random``, ``formula``, ``prototype``, ``time`` or ``given``.
        split_column: property that holds the date (``time``) or the split (``given``, default ``split``).
        fractions: shares of train, val and test.
        seed: of the random, formula and prototype splits.
        workers: processes; 1 works in this process, more start a local Dask cluster.
        scheduler: address of a running Dask scheduler to use instead.
        symprec: tolerance of the symmetry search, Å.
        max_atoms: larger cells are left out.
        max_displacement: structures further (Å) from their ideal crystal are left out.
        max_strain: structures more strained against their ideal crystal are left out.
        keep_frame: also store the way back to the source's own cell and frame, and what its sites carry
            (moments, charges, isotopes, labels, forces).
        pseudo_symmetry: also store the space group found at 0.1, 0.01 and 0.001 Å.
        source_options: keyword arguments for ``open_source``, such as ``units`` or ``id_column``.
        on_progress: called as the build goes on.

    Raises:
        StoreError: ``out`` holds something else, or is being built by another process.
        SourceError: the source or the property table cannot be read.
    """
    began = time.monotonic()
    if workers < 1:
        raise StoreError(f"workers must be at least 1, got {workers}")
    encoding = EncodingSettings(symprec, max_atoms, max_displacement, max_strain, keep_frame, pseudo_symmetry)
    rule = SplitRule(split, seed, _three(fractions), split_column)
    joined = None
    if properties_table is not None:
        table = os.fspath(properties_table)
        joined = JoinedTable(table, properties_id_column, table_fingerprint(table))
        joined.read()  # a table that cannot be read should say so before anything is built
    spec = os.fspath(source_spec)
    source = open_source(spec, max_atoms=max_atoms, **(source_options or {}))
    tasks = list(source.tasks())
    plan = BuildPlan(os.fspath(out), source, encoding, rule, joined)
    stated = {name: value for name, value in (source_options or {}).items() if name not in SECRET_OPTIONS}
    settings = {
        "schema_version": SCHEMA_VERSION,
        "source": spec,
        "source_options": json.loads(json.dumps(stated, default=str)),
        "source_tasks": _fingerprint(tasks),
        "encoding": encoding.to_json(),
        "split": rule.to_json(),
        "properties_table": asdict(joined) if joined else None,
        "nucleate_version": nucleate.__version__,
    }
    folder = open_folder(out)
    finished = _finished(folder, settings)
    if finished is not None:
        tidy(folder, finished)
        num_inputs = finished.num_records + finished.num_rejected
        return BuildReport(folder.location, finished, num_inputs, time.monotonic() - began)
    _refuse_strangers(folder)
    with _locked(folder):
        _take(folder, settings)
        folder.remove_unfinished(SHARD_FOLDER)
        num_resumed = _run(plan, folder, tasks, workers, scheduler, on_progress)
        described = {"spec": spec, "name": source.name, "licence": source.licence}
        manifest = assemble(folder, plan, described, settings)
    tidy(folder, manifest)
    return BuildReport(folder.location, manifest, num_resumed, time.monotonic() - began)


def _run(
    plan: BuildPlan,
    folder: Folder,
    tasks: list[Task],
    workers: int,
    scheduler: str | None,
    on_progress: Callable[[BuildProgress], None] | None,
) -> int:
    """Do the jobs that are left; the number of inputs that were done before."""
    jobs, num_records, num_left_out = Journal.open(folder).remaining(tasks)
    resumed = num_records + num_left_out
    counts = [task.count for task in tasks]
    total = None if any(count is None for count in counts) else sum(count or 0 for count in counts)

    def tell() -> None:
        if on_progress is not None:
            on_progress(BuildProgress(num_records, num_left_out, total, resumed))

    def on_input(stored: bool) -> None:
        nonlocal num_records, num_left_out
        num_records, num_left_out = num_records + stored, num_left_out + (not stored)
        tell()

    tell()
    if workers == 1 and scheduler is None:
        for _ in run_in_process(plan, jobs, on_input):
            pass
    elif jobs:
        for result in run_on_dask(plan, jobs, workers=workers, scheduler=scheduler):
            num_records, num_left_out = num_records + result.num_records, num_left_out + result.num_left_out
            tell()
    return resumed


def _finished(folder: Folder, settings: Mapping[str, Any]) -> Manifest | None:
    """Manifest of the store that is already there and is what was asked for; None where there is none yet."""
    if not folder.exists(MANIFEST_FILE):
        return None
    manifest = read_manifest(folder)
    _refuse_other(folder, manifest.settings, settings, "holds a store")
    return manifest


def _refuse_strangers(folder: Folder) -> None:
    """Refuse a local folder that holds something else; nothing in it is touched."""
    if folder.exists(SETTINGS_FILE) or not isinstance(folder, LocalFolder) or not folder.path.exists():
        return
    if not folder.path.is_dir():
        raise StoreError(f"{folder.location} is a file: name a new folder for the store")
    strangers = sorted(p.name for p in folder.path.iterdir() if p.name != BUILD_FOLDER)
    if strangers:
        raise StoreError(
            f"{folder.location} is not empty and holds no store ({', '.join(strangers[:5])}): "
            "name a new folder"
        )


def _take(folder: Folder, settings: Mapping[str, Any]) -> None:
    """Write down what is being built, or see that it is what was begun; a build without results yields."""
    if folder.exists(SETTINGS_FILE) and Journal.open(folder).names:
        try:
            found = json.loads(folder.read_bytes(SETTINGS_FILE))
        except ValueError as error:
            raise StoreError(f"{SETTINGS_FILE} of {folder.location} is damaged: remove the folder") from error
        _refuse_other(folder, found, settings, "holds an unfinished store")
    else:
        folder.write_bytes(SETTINGS_FILE, json.dumps(settings, indent=1).encode())


def _refuse_other(folder: Folder, found: Mapping[str, Any], asked: Mapping[str, Any], what: str) -> None:
    differing = _differences(found, asked)
    if differing:
        raise StoreError(
            f"{folder.location} {what} that was built with other settings ({'; '.join(differing)}): "
            "name another folder, repeat the old settings, or remove the folder first"
        )


def _differences(found: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Settings that differ, ``symprec 0.01 there, 0.1 asked``, in words where a value is a hash."""
    differing = []
    for name in sorted({*found, *asked}):
        there, wanted = found.get(name), asked.get(name)
        if there == wanted:
            continue
        if name in ("source_tasks", "fingerprint"):
            what = (
                "files or rows of the source" if name == "source_tasks" else "content of the property table"
            )
            differing.append(f"the {what} changed since")
        elif isinstance(there, dict) and isinstance(wanted, dict):
            differing += _differences(there, wanted, f"{name} ")
        else:
            differing.append(f"{prefix}{name} {there!r} there, {wanted!r} asked")
    return differing


@contextmanager
def _locked(folder: Folder) -> Iterator[None]:
    """Keep a second build out of a local folder; the lock goes with its process, also when that is killed."""
    if not isinstance(folder, LocalFolder):
        yield
        return
    from filelock import FileLock, Timeout  # noqa: PLC0415  not on the training path

    lock = folder.path / LOCK_FILE
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0):
            yield
    except Timeout as error:
        raise StoreError(
            f"Another process is building {folder.location}: wait for it, or name another folder"
        ) from error


def _fingerprint(tasks: list[Task]) -> str:
    """Hash over what the tasks would read: other files, rows or sizes of files give another."""
    state = hashlib.sha256()
    sizes: dict[str, int] = {}
    for task in tasks:
        if task.file not in sizes:
            sizes[task.file] = os.path.getsize(task.file) if os.path.isfile(task.file) else -1
        fields = (task.key, task.file, task.first, task.count, task.problem, sizes[task.file])
        state.update(json.dumps(fields).encode())
    return state.hexdigest()


def _three(fractions: Sequence[float]) -> tuple[float, float, float]:
    if len(fractions) != 3:
        raise StoreError(f"fractions must be three numbers (train, val, test), got {len(fractions)}")
    return float(fractions[0]), float(fractions[1]), float(fractions[2])


def _named(ids: Sequence[str], count: int) -> str:
    return ", ".join(ids) + (", ... (all in unmatched.csv)" if count > len(ids) else "")
