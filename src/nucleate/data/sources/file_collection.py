"""Files as a source: a file, a folder (sorted), a glob pattern, each file read by what it is."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from nucleate.data.record import Record, Rejection, Source, Task
from nucleate.data.sources import (
    archive,
    ase_database,
    csv_table,
    extxyz,
    json_files,
    parquet_table,
    structure_files,
)
from nucleate.data.sources.dataset import Dataset, DatasetSource, reason_of
from nucleate.data.sources.foreign_values import BENCHMARK_UNITS
from nucleate.errors import SourceError

FILES_PER_TASK = 256
_MAX_FILE_BYTES = archive.MAX_MEMBER_BYTES
#: A larger trajectory is cut into blocks of frames; smaller ones go into a bundle with other files.
_LARGE_EXTXYZ_BYTES = 8 * 2**20


def open_files(
    spec: str,
    *,
    name: str | None = None,
    units: Mapping[str, str] | None = None,
    licence: str | None = None,
    url: str | None = None,
    reference: str | None = None,
    id_column: str | None = None,
    cif_column: str | None = None,
    source_column: str | None = None,
    max_atoms: int = 1000,
) -> Source:
    """The source for a path or glob pattern.

    Args:
        spec: a file, a folder (all files below it, sorted), or a glob pattern (``data/**/*.cif``).
        name: short name for the provenance, by default the file's or folder's own.
        units: units of properties; added to the ones of the benchmark columns.
        licence: terms of use.
        url: page of the data set.
        reference: what to cite.
        id_column: column that names the records of tables.
        cif_column: column of tables that holds the structures as CIF text.
        source_column: column that names the data set of each record, where several are in one table; a network that is
            trained on the store then has a token for each.
        max_atoms: largest number of atoms per cell that is read.

    Raises:
        SourceError: nothing is there, or a single file is of a kind that cannot be read.
    """
    path = os.path.expanduser(spec)
    dataset = Dataset(
        name or _name_of(path),
        {**BENCHMARK_UNITS, **(units or {})},
        licence=licence,
        url=url,
        reference=reference,
        source_column=source_column,
    )
    collection = FileCollection(path, dataset, id_column, cif_column, max_atoms)
    if os.path.isfile(path):
        source = collection.source_of(path)
        if source is None and structure_files.structure_format(path) is None:
            raise SourceError(f"{path}: {structure_files.NOT_READABLE}")
        return source or collection
    if not os.path.isdir(path) and not any(True for _ in glob.iglob(path, recursive=True)):
        raise SourceError(
            f"There is no file, folder or match for {spec!r}. Sources are paths, glob patterns, or one of "
            "jarvis:, mp:, cod:, icsd:, optimade: and oqmd:."
        )
    return collection


@dataclass(frozen=True)
class FileCollection(DatasetSource):
    """All files below a folder or matching a pattern: structure files bundled, tables and archives cut up.

    Attributes:
        path: folder, file or glob pattern.
        dataset: name, units, terms and citation.
        id_column: column that names the records of tables.
        cif_column: column of tables that holds CIF text.
        max_atoms: largest number of atoms per cell that is read.
        reader: makes records of structure files; by default named after the file.
    """

    path: str
    dataset: Dataset
    id_column: str | None = None
    cif_column: str | None = None
    max_atoms: int = 1000
    reader: structure_files.StructureReader | None = None

    @property
    def structure_reader(self) -> structure_files.StructureReader:
        """What makes records of structure files here."""
        return self.reader or structure_files.StructureReader(self.dataset, max_atoms=self.max_atoms)

    def source_of(self, path: str) -> Source | None:
        """The source for a table, database or archive; None for a structure file or an unknown kind."""
        lower = path.lower()
        if lower.endswith(csv_table.SUFFIXES):
            return csv_table.CsvTable(path, self.dataset, self.id_column, self.cif_column, self.max_atoms)
        if lower.endswith(parquet_table.SUFFIXES):
            return parquet_table.ParquetTable(
                path, self.dataset, self.id_column, self.cif_column, self.max_atoms
            )
        if lower.endswith(ase_database.SUFFIXES):
            return ase_database.AseDatabase(path, self.dataset)
        if lower.endswith(json_files.SUFFIXES):
            return json_files.json_source(path, self.dataset)
        if lower.endswith(extxyz.SUFFIXES) and _size(path) > _LARGE_EXTXYZ_BYTES:
            stem = structure_files.record_name(self._relative(path))
            return extxyz.ExtxyzFile(path, stem, extxyz.FrameReader(self.dataset, self.max_atoms))
        if archive.is_archive(path):
            return json_files.zipped_json_source(path, self.dataset) or structure_files.StructureArchive(
                path, self.structure_reader, self.dataset.units
            )
        return None

    def tasks(self) -> Iterator[Task]:
        """Bundles of structure files and the pieces of each table, database and archive, in sorted order.

        Raises:
            SourceError: the folder or pattern leads to no file at all.
        """
        bundle: list[str] = []
        number = 0
        for path, problem in self._walk():
            source = None if problem else self.source_of(path)
            if source is None and problem is None:
                bundle.append(path)
                if len(bundle) == FILES_PER_TASK:
                    yield self._bundle(bundle)
                    bundle = []
                continue
            if bundle:
                yield self._bundle(bundle)
                bundle = []
            number += 1
            if source is None:
                yield Task(key=f"{self._relative(path)}::name", file=path, count=1, problem=problem)
                continue
            for task in source.tasks():
                yield replace(task, key=f"{self._relative(path)}::{task.key}")
        if bundle:
            yield self._bundle(bundle)
        elif number == 0:
            # Nothing to leave out and nothing to store: an empty store would stand in the way of the real one.
            raise SourceError(
                f"{self.path} holds no files: check the path, or put the structures there first"
            )

    def read(self, task: Task) -> Iterator[Record | Rejection]:
        """The crystals of one bundle of files, or of one piece of a table or archive."""
        if task.problem is not None:
            yield Rejection(task.file, None, None, task.problem)
        elif "files" in task.details:
            for path in task.details["files"]:
                yield from self._file(path)
        else:
            source = self.source_of(task.file)
            if source is None:
                yield Rejection(
                    task.file, None, None, "The file is no longer what it was when the build began."
                )
            else:
                yield from source.read(task)

    def _bundle(self, files: list[str]) -> Task:
        return Task(
            key=f"{self._relative(files[0])}::{len(files)}-files",
            file=self.path,
            count=len(files),
            details={"files": tuple(files)},
        )

    def _file(self, path: str) -> Iterator[Record | Rejection]:
        try:
            size = os.path.getsize(path)
            if structure_files.structure_format(path) is None:
                yield Rejection(path, None, None, structure_files.NOT_READABLE)
                return
            if size > _MAX_FILE_BYTES:
                limit = f"{_MAX_FILE_BYTES // 2**20} MiB"
                yield Rejection(path, None, None, f"The file has {size / 2**20:.0f} MiB, more than {limit}.")
                return
            content = Path(path).read_bytes()
        except OSError as error:
            yield Rejection(path, None, None, reason_of(error))
            return
        yield from self.structure_reader.records(self._relative(path), content, file=path)

    def _relative(self, path: str) -> str:
        """The path below the folder; for a file or a pattern, below its fixed part."""
        root = self.path if os.path.isdir(self.path) else _fixed_part(self.path)
        return PurePath(os.path.relpath(path, root or ".")).as_posix()

    def _walk(self) -> Iterable[tuple[str, str | None]]:
        if os.path.isfile(self.path):
            yield self.path, None
        elif os.path.isdir(self.path):
            yield from _walk_folder(self.path)
        else:
            for match in sorted(glob.iglob(self.path, recursive=True)):
                if os.path.isfile(match):
                    yield match, None
                elif problem := _folder_problem(match):
                    yield match, problem


def _walk_folder(folder: str) -> Iterator[tuple[str, str | None]]:
    """Files below a folder in sorted order; links to folders are not followed, they may lead in circles."""
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if problem := _folder_problem(entry.path):
                yield entry.path, problem
            try:
                yield from _walk_folder(entry.path)
            except OSError as error:
                yield entry.path, reason_of(error)
        elif entry.is_file():
            yield entry.path, None
        else:
            yield entry.path, "The entry is a broken link, a link to a folder, or a device, not a file."


def _folder_problem(path: str) -> str | None:
    if structure_files.structure_format(path) == "cif" or archive.is_archive(path):
        return f"{PurePath(path).name} is a folder with the name of a file; what is inside it is read."
    return None


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0  # reading it gives the reason


def _fixed_part(pattern: str) -> str:
    parts = PurePath(os.path.dirname(pattern)).parts
    fixed = []
    for part in parts:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return os.path.join(*fixed) if fixed else ""


def _name_of(path: str) -> str:
    name = (
        PurePath(os.path.abspath(path)).name if not glob.has_magic(path) else PurePath(_fixed_part(path)).name
    )
    stem = name.split(".")[0] if os.path.isfile(path) else name
    return stem or "files"
