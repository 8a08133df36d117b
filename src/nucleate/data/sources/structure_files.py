"""Structure files (CIF, POSCAR, extended XYZ) alone, in folders and in archives: from bytes to records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from nucleate.crystal.cif_block import CifTags
from nucleate.crystal.convert import (
    CifBlock,
    cif_blocks,
    decode_text,
    unit_cell_from_poscar,
)
from nucleate.crystal.unit_cell import UnitCell
from nucleate.data.categories import category_of
from nucleate.data.record import Record, Rejection, Task
from nucleate.data.sources import archive, extxyz
from nucleate.data.sources.cif_splitting import split_cif
from nucleate.data.sources.dataset import Dataset, reason_of
from nucleate.data.sources.extxyz import FrameReader
from nucleate.errors import ParseError, SourceError

CIF_SUFFIXES = (".cif", ".mcif")
POSCAR_SUFFIXES = (".vasp", ".poscar", ".contcar")
MEMBERS_PER_TASK = 256
#: Each task on a compressed tar streams from its start, and each on a zip reads its directory again.
MAX_TASKS_PER_ARCHIVE = 32

#: Reads what a CIF says beside the structure: tags of one data block -> (id, properties, provenance fields).
CifReader = Callable[[CifTags], tuple[str | None, Mapping[str, Any], Mapping[str, Any]]]


def structure_format(name: str) -> str | None:
    """``cif``, ``poscar`` or ``extxyz`` by the file's name, None where it is no structure file."""
    base = PurePosixPath(name.replace("\\", "/")).name
    lower = base.lower()
    if lower.endswith(CIF_SUFFIXES):
        return "cif"
    if lower.endswith(POSCAR_SUFFIXES) or base.upper().startswith(("POSCAR", "CONTCAR")):
        return "poscar"
    if lower.endswith(extxyz.SUFFIXES):
        return "extxyz"
    return None


@dataclass(frozen=True)
class StructureReader:
    """Makes records of the bytes of structure files.

    Attributes:
        dataset: name, units, terms and citation.
        read_cif: reads id and properties from a CIF beside the structure, None for the file's name as id.
        max_atoms: largest number of atoms per cell that is read.
    """

    dataset: Dataset
    read_cif: CifReader | None = None
    max_atoms: int = 1000

    def records(self, name: str, content: bytes, *, file: str) -> Iterator[Record | Rejection]:
        """Records of one file; a bad data block or frame is a rejection, the others go on.

        Args:
            name: the file's name relative to its folder or archive; gives the records their id.
            content: its bytes.
            file: what stands in the provenance (``archive!member`` for a member).
        """
        kind = structure_format(name)
        if kind is None:
            yield Rejection(file, None, None, NOT_READABLE)
            return
        if not content.strip():
            yield Rejection(file, None, None, "The file is empty.")
            return
        try:
            stem = record_name(name)
            text = decode_text(content, name=stem)
            if kind == "cif":
                yield from self._cif(stem, text, file)
            elif kind == "poscar":
                yield self._one(
                    stem,
                    lambda: unit_cell_from_poscar(text, name=stem, max_atoms=self.max_atoms),
                    {},
                    file,
                    0,
                )
            else:
                yield from FrameReader(self.dataset, self.max_atoms).records(stem, content, file=file)
        except Exception as error:
            # foreign text: whatever a parser trips over is the reason, not the end
            yield Rejection(file, None, None, reason_of(error))

    def _one(
        self,
        record_id: str,
        parse: Callable[[], UnitCell],
        properties: Mapping[str, Any],
        file: str,
        row: int | str,
        provenance: Mapping[str, Any] | None = None,
    ) -> Record | Rejection:
        try:
            structure = parse()
        except Exception as error:
            # as above
            return Rejection(file, row, record_id, reason_of(error), category_of(error))
        return self.dataset.record(
            record_id, structure, properties=properties, file=file, row=row, **(provenance or {})
        )

    def _cif(self, stem: str, text: str, file: str) -> Iterator[Record | Rejection]:
        try:
            blocks = cif_blocks(text, name=stem)
        except ParseError as error:
            parts = split_cif(text)
            if len(parts) < 2:
                yield Rejection(file, None, stem, reason_of(error))
                return
            for row, (title, part) in enumerate(parts):
                record_id = f"{stem}-{title or row}"
                try:
                    block = cif_blocks(part, name=record_id)[0]
                except ParseError as damage:
                    yield Rejection(file, row, record_id, reason_of(damage))
                    continue
                if block.has_atoms:
                    yield self._block(record_id, block, file, row)
            return
        # Blocks without atoms hold the publication, powder patterns and the like.
        chosen = [(row, block) for row, block in enumerate(blocks) if block.has_atoms] or [(0, blocks[0])]
        for row, block in chosen:
            record_id = stem if len(chosen) == 1 else f"{stem}-{block.name or row}"
            yield self._block(record_id, block, file, row)

    def _block(self, record_id: str, block: CifBlock, file: str, row: int) -> Record | Rejection:
        properties: Mapping[str, Any] = {}
        provenance: Mapping[str, Any] = {}
        if self.read_cif is not None:
            own_id, properties, provenance = self.read_cif(block.tags)
            record_id = own_id or record_id
        return self._one(
            record_id, lambda: block.unit_cell(max_atoms=self.max_atoms), properties, file, row, provenance
        )


NOT_READABLE = (
    "The file is not one that nucleate reads (.cif, POSCAR, CONTCAR, .vasp, .extxyz, .csv, .parquet, .db, "
    ".json, or a zip or tar archive of structure files)."
)


def record_name(name: str) -> str:
    """Id of the record of a file: its path without suffix; a POSCAR or CONTCAR is named by its folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.name.upper() in {"POSCAR", "CONTCAR"} and path.parent.name:
        return str(path.parent)
    return str(path.with_suffix("")) if path.suffix.lower() in _NAMED_SUFFIXES else str(path)


_NAMED_SUFFIXES = frozenset(CIF_SUFFIXES + POSCAR_SUFFIXES + extxyz.SUFFIXES)


@dataclass(frozen=True)
class StructureArchive:
    """A zip or tar archive of structure files.

    Attributes:
        path: the archive.
        reader: makes records of its members.
    """

    path: str
    reader: StructureReader
    units: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Short name of the data set."""
        return self.reader.dataset.name

    @property
    def licence(self) -> str | None:
        """Terms of use as given when the archive was opened."""
        return self.reader.dataset.licence

    def tasks(self) -> Iterator[Task]:
        """Ranges of members; a tar is streamed through once to count them."""
        try:
            total = archive.count_members(self.path)
        except (SourceError, OSError) as error:
            yield Task(key="archive", file=self.path, count=1, problem=reason_of(error))
            return
        if total == 0:
            yield Task(key="archive", file=self.path, count=1, problem="The archive has no members.")
        block = max(MEMBERS_PER_TASK, -(-total // MAX_TASKS_PER_ARCHIVE))
        for first in range(0, total, block):
            count = min(block, total - first)
            yield Task(key=f"members-{first}", file=self.path, first=first, count=count)

    def read(self, task: Task) -> Iterator[Record | Rejection]:
        """The crystals of one range of members."""
        if task.problem is not None:
            yield Rejection(self.path, None, None, task.problem)
            return
        try:
            for member in archive.iter_members(self.path, task.first, task.count or 0):
                file = f"{self.path}!{member.name}"
                if member.content is None:
                    yield Rejection(file, None, None, member.problem or "The member cannot be read.")
                else:
                    yield from self.reader.records(member.name, member.content, file=file)
        except (SourceError, OSError) as error:
            yield Rejection(self.path, None, None, reason_of(error))
