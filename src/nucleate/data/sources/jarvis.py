"""JARVIS-DFT and the other sets that JARVIS distributes: JSON lists of entries, zipped, on figshare."""

from __future__ import annotations

import difflib
import os
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, cast

from nucleate.crystal.species import parse_species
from nucleate.data.categories import category_of
from nucleate.data.record import Record, Rejection, Task
from nucleate.data.sources.byte_stream import ByteStream
from nucleate.data.sources.dataset import Dataset, DatasetSource, reason_of, unit_cell_from_arrays
from nucleate.data.sources.download import cache_folder, download, figshare_checksum
from nucleate.data.sources.foreign_values import find_id_column
from nucleate.data.sources.jarvis_datasets import DATASETS, UNITS
from nucleate.data.sources.json_stream import iter_json_items
from nucleate.errors import NucleateError, ParseError, SourceError

ENTRIES_PER_TASK = 1000
#: Each task decompresses the member from its start, so that a large one is cut into few of them.
MAX_TASKS_PER_ZIP = 24
_DAMAGED = (EOFError, OSError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError)


def open_jarvis(
    spec: str,
    *,
    cache_dir: str | None = None,
    licence: str | None = None,
    units: Mapping[str, str] | None = None,
) -> JarvisEntries:
    """The source for a set of JARVIS, downloaded into the user's cache folder when it is not there yet.

    Args:
        spec: name of a set (``dft_3d``), or path of a zip or JSON file of one.
        cache_dir: folder for downloads instead of the user's cache folder.
        licence: terms of use; they differ from set to set and stand on the set's figshare page (its ``url``).
        units: units of further properties.

    Raises:
        SourceError: no such set or file, or the download failed.
    """
    extra = Dataset(f"jarvis_{spec.replace('dft_3d', 'dft3d')}", dict(units or {}), licence=licence)
    if os.path.isfile(spec):
        path = spec
    elif spec in DATASETS:
        path = fetch_dataset(spec, cache_dir=cache_dir)
    else:
        nearest = difflib.get_close_matches(spec, DATASETS, 1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(DATASETS)}"
        raise SourceError(f"JARVIS has no set {spec!r} and there is no such file; {hint}")
    member = None
    if path.lower().endswith(".zip"):
        member = _json_member(path)
    return JarvisEntries(path, member, jarvis_dataset(member or path, extra))


def fetch_dataset(name: str, *, cache_dir: str | None = None) -> str:
    """Path of the zip of a set, downloaded if it is not cached and checked against figshare's MD5 and size.

    Raises:
        SourceError: the download failed or what came is not what figshare lists.
    """
    dataset = DATASETS[name]
    path = Path(cache_dir or cache_folder()) / "jarvis" / f"{dataset.member}.zip"
    if not path.exists():
        checksum = figshare_checksum(dataset.article_id, dataset.file_id)
        download(dataset.url, path, checksum=checksum, check=_check_zip)
    return str(path)


def jarvis_dataset(file: str, dataset: Dataset) -> Dataset:
    """``dataset`` with JARVIS's units, and with name and reference of the set that a file of this name is."""
    units = {**UNITS, **dataset.units}
    for name, known in DATASETS.items():
        if PurePath(file).name == known.member:
            return replace(
                dataset,
                name=f"jarvis_{name.replace('dft_3d', 'dft3d').replace('dft_2d', 'dft2d')}",
                units=units,
                url=dataset.url or f"https://doi.org/10.6084/m9.figshare.{known.article_id}",
                reference=dataset.reference or known.reference,
            )
    return replace(dataset, units=units)


@dataclass(frozen=True)
class JarvisEntries(DatasetSource):
    """A JSON list of JARVIS entries, each with its ``atoms``; streamed, never loaded as a whole.

    Attributes:
        path: the JSON file, or a zip with it.
        member: name of the JSON file in the zip, None for a bare one.
        dataset: name, units, terms and citation.
    """

    path: str
    member: str | None
    dataset: Dataset

    @property
    def file(self) -> str:
        """What stands in the provenance: the path, with the member of a zip."""
        return f"{self.path}!{self.member}" if self.member else self.path

    def tasks(self) -> Iterator[Task]:
        """Ranges of entries; the list is streamed through once to find where they begin."""
        offsets, count, problem = [], 0, None
        try:
            with _open(self.path, self.member) as stream:
                for item in iter_json_items(stream):
                    if not isinstance(item.key, int):
                        raise ParseError("The JSON is an object, not a list of JARVIS entries.")
                    if count % ENTRIES_PER_TASK == 0:
                        offsets.append(item.offset)
                    count += 1
        except (NucleateError, *_DAMAGED) as error:
            problem = reason_of(error)
        step = -(-len(offsets) // MAX_TASKS_PER_ZIP) if self.member and offsets else 1
        for start in range(0, len(offsets), step):
            first = start * ENTRIES_PER_TASK
            size = min(step * ENTRIES_PER_TASK, count - first)
            details = {"offset": offsets[start]}
            yield Task(key=f"entries-{first}", file=self.path, first=first, count=size, details=details)
        if problem is not None:
            yield Task(key=f"damage-{count}", file=self.path, first=count, count=1, problem=problem)
        elif count == 0:
            yield Task(key="empty", file=self.path, count=1, problem="The list has no entries.")

    def read(self, task: Task) -> Iterator[Record | Rejection]:
        """The crystals of one range of entries."""
        if task.problem is not None:
            yield Rejection(self.file, task.first or None, None, task.problem)
            return
        end = task.first + (task.count or 0)
        try:
            with _open(self.path, self.member) as stream:
                for item in iter_json_items(stream, task.details["offset"], first=task.first):
                    yield self._record(cast(int, item.key), item.value)
                    if item.key == end - 1:
                        return
        except (NucleateError, *_DAMAGED) as error:
            yield Rejection(self.file, task.first, None, reason_of(error))

    def _record(self, row: int, entry: Any) -> Record | Rejection:
        if not isinstance(entry, dict):
            return Rejection(self.file, row, None, f"The entry is a {type(entry).__name__}, not a mapping.")
        key = "jid" if "jid" in entry else find_id_column(entry)
        own_id = str(entry[key]) if key is not None and entry[key] not in (None, "", "na") else None
        record_id = own_id or f"{self.name}-{row}"
        try:
            structure = _unit_cell(entry.get("atoms"), record_id)
        except Exception as error:
            # a foreign entry: whatever goes wrong is its reason, not the end
            return Rejection(self.file, row, own_id, reason_of(error), category_of(error))
        properties = {name: value for name, value in entry.items() if name not in {"atoms", "desc", key}}
        return self.dataset.record(
            record_id,
            structure,
            properties=properties,
            file=self.file,
            row=row,
            database_id=own_id,
            url=_PAGE.format(own_id) if own_id and _JARVIS_ID.fullmatch(own_id) else None,
        )


_JARVIS_ID = re.compile(r"JVASP-\d+")
_PAGE = "https://www.ctcms.nist.gov/~knc6/static/JARVIS-DFT/{}.xml"


def _unit_cell(atoms: Any, record_id: str) -> Any:
    """The unit cell of a JARVIS atoms mapping: ``lattice_mat``, ``coords``, ``cartesian``, ``elements``."""
    if not isinstance(atoms, dict):
        raise ParseError(f"{record_id} has no structure ('atoms' is missing)")
    missing = [name for name in ("lattice_mat", "coords", "elements") if name not in atoms]
    if missing:
        raise ParseError(f"{record_id}: 'atoms' lacks {', '.join(missing)}")
    numbers = [parse_species(str(symbol)).atomic_number for symbol in atoms["elements"]]
    kind = "cart" if atoms.get("cartesian") in (True, "True", "true", 1) else "frac"
    coords = {kind: atoms["coords"]}
    return unit_cell_from_arrays(numbers, atoms["lattice_mat"], name=record_id, **coords)


def _json_member(path: str) -> str:
    try:
        with closing(zipfile.ZipFile(path)) as archive:
            members = [
                info.filename for info in archive.infolist() if info.filename.lower().endswith(".json")
            ]
    except _DAMAGED as error:
        raise SourceError(f"The zip {path} is damaged or cut short ({error})") from error
    if len(members) != 1:
        raise SourceError(f"The zip {path} holds {len(members)} JSON files; a JARVIS set has one")
    return members[0]


class _open:
    """Context manager: bytes of the JSON file or of the member of a zip, neither ever unpacked onto disk."""

    def __init__(self, path: str, member: str | None) -> None:
        self._path, self._member = path, member
        self._stack = ExitStack()

    def __enter__(self) -> ByteStream:
        if self._member is None:
            return self._stack.enter_context(open(self._path, "rb"))
        archive = self._stack.enter_context(zipfile.ZipFile(self._path))
        return cast(ByteStream, self._stack.enter_context(archive.open(self._member)))

    def __exit__(self, *exc: object) -> None:
        self._stack.close()


def _check_zip(path: Path) -> None:
    """Check that a downloaded file is a whole zip with one JSON file.

    Raises:
        SourceError: it is not.
    """
    member = _json_member(str(path))
    with closing(zipfile.ZipFile(path)) as archive:
        try:
            with archive.open(member) as stream:  # reading to the end checks the CRC
                while stream.read(2**22):
                    pass
        except _DAMAGED as error:
            raise SourceError(f"The downloaded zip is damaged ({error}); try again") from error
