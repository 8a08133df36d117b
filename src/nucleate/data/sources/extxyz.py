"""Extended-XYZ files, frame by frame, however many frames they hold."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from nucleate.crystal.convert import decode_text, unit_cell_from_ase
from nucleate.data.categories import category_of
from nucleate.data.record import Record, Rejection, Task
from nucleate.data.sources.byte_stream import ByteStream
from nucleate.data.sources.dataset import Dataset, reason_of
from nucleate.errors import ParseError

SUFFIXES = (".extxyz", ".xyz")
FRAMES_PER_TASK = 1000
_MAX_ATOMS_PER_FRAME = 10**6
_MAX_LINE_BYTES = 2**20
UNITS: Mapping[str, str] = {"energy": "eV", "free_energy": "eV", "stress": "eV/Å³", "dipole": "e Å"}
_ID_KEYS = ("material_id", "structure_id", "mp_id", "id")
#: Results of a calculator with one value per atom; they go with the sites.
_PER_ATOM = frozenset({"forces", "magmoms", "charges", "energies", "stresses"})


@dataclass(frozen=True)
class Frame:
    """One frame: where it starts (bytes), its number, and its text."""

    offset: int
    index: int
    content: bytes


def iter_frames(stream: ByteStream, offset: int = 0, *, first: int = 0) -> Iterator[Frame]:
    """Frames from ``offset`` on, cut by their line counts.

    Raises:
        ParseError: a frame does not begin with its number of atoms, or the file ends inside one. There is
            no way to find the next frame behind that; the frames before have been given by then.
    """
    stream.seek(offset)
    index = first
    while head := stream.readline(_MAX_LINE_BYTES):
        if not head.strip():
            offset += len(head)
            continue
        try:
            count = int(head)
        except ValueError:
            count = -1
        if not 0 < count <= _MAX_ATOMS_PER_FRAME:
            start = head.strip()[:40].decode("latin-1")
            raise ParseError(f"Frame {index} begins with {start!r}, not with its number of atoms")
        lines = [head, *(stream.readline(_MAX_LINE_BYTES) for _ in range(count + 1))]
        if not lines[-1].strip():
            raise ParseError(
                f"Frame {index} says it has {count} atoms, but the file ends before the last of them"
            )
        content = b"".join(lines)
        yield Frame(offset, index, content)
        offset += len(content)
        index += 1


@dataclass(frozen=True)
class FrameReader:
    """Makes records of frames.

    Attributes:
        dataset: name, units, terms and citation.
        max_atoms: largest number of atoms per cell that is read.
    """

    dataset: Dataset
    max_atoms: int = 1000

    def records(self, stem: str, content: bytes, *, file: str) -> Iterator[Record | Rejection]:
        """Records of all frames of a small file; a single frame is named by the file alone."""
        frames, damage = [], None
        try:
            for frame in iter_frames(io.BytesIO(content)):
                frames.append(frame)
        except ParseError as error:
            damage = Rejection(file, len(frames), None, reason_of(error))
        alone = len(frames) == 1 and damage is None
        for frame in frames:
            yield self.record(stem if alone else f"{stem}-{frame.index}", frame, file=file)
        if damage is not None:
            yield damage

    def record(self, record_id: str, frame: Frame, *, file: str) -> Record | Rejection:
        """The record of one frame; its ``info`` gives the properties, its arrays the site properties."""
        try:
            atoms = _read_frame(decode_text(frame.content, name=record_id))
            properties = {key: value for key, value in atoms.info.items() if isinstance(key, str)}
            if atoms.calc is not None:
                results = atoms.calc.results
                properties.update({key: value for key, value in results.items() if key not in _PER_ATOM})
            own_id = next((properties.pop(key) for key in _ID_KEYS if key in properties), None)
            record_id = str(own_id) if own_id is not None else record_id
            structure = unit_cell_from_ase(atoms, name=record_id, max_atoms=self.max_atoms)
        except Exception as error:
            # foreign text: whatever a parser trips over is this frame's reason, not the end
            return Rejection(file, frame.index, record_id, reason_of(error), category_of(error))
        return self.dataset.record(
            record_id,
            structure,
            properties=properties,
            file=file,
            row=frame.index,
            database_id=str(own_id) if own_id is not None else None,
            units={**UNITS, **self.dataset.units},
        )


@dataclass(frozen=True)
class ExtxyzFile:
    """A large extended-XYZ file, read in blocks of frames.

    Attributes:
        path: the file.
        stem: beginning of the ids of frames that carry none.
        reader: makes records of frames.
    """

    path: str
    stem: str
    reader: FrameReader

    @property
    def name(self) -> str:
        """Short name of the data set."""
        return self.reader.dataset.name

    @property
    def units(self) -> Mapping[str, str]:
        """Units of the properties as far as known."""
        return {**UNITS, **self.reader.dataset.units}

    @property
    def licence(self) -> str | None:
        """Terms of use as given when the file was opened."""
        return self.reader.dataset.licence

    def tasks(self) -> Iterator[Task]:
        """Blocks of frames; the file is streamed through once to find where they begin."""
        begin, first, count = 0, 0, 0
        problem = None
        try:
            with open(self.path, "rb") as stream:
                for frame in iter_frames(stream):
                    if count == FRAMES_PER_TASK:
                        yield self._task(first, count, begin)
                        begin, first, count = frame.offset, frame.index, 0
                    count += 1
        except (ParseError, OSError) as error:
            problem = reason_of(error)
        if count:
            yield self._task(first, count, begin)
        end = first + count
        if problem is not None:
            yield Task(key=f"damage-{end}", file=self.path, first=end, count=1, problem=problem)
        elif end == 0:
            yield Task(key="empty", file=self.path, count=1, problem="The file is empty.")

    def _task(self, first: int, count: int, offset: int) -> Task:
        details = {"offset": offset}
        return Task(key=f"frames-{first}", file=self.path, first=first, count=count, details=details)

    def read(self, task: Task) -> Iterator[Record | Rejection]:
        """The crystals of one block of frames."""
        if task.problem is not None:
            yield Rejection(self.path, task.first, None, task.problem)
            return
        try:
            with open(self.path, "rb") as stream:
                frames = iter_frames(stream, task.details["offset"], first=task.first)
                for frame in islice(frames, task.count):
                    yield self.reader.record(f"{self.stem}-{frame.index}", frame, file=self.path)
        except (ParseError, OSError) as error:
            yield Rejection(
                self.path, task.first, None, f"The file changed while it was read: {reason_of(error)}"
            )


def _read_frame(text: str) -> Any:
    from ase.io.extxyz import read_xyz  # noqa: PLC0415 - ase is slow to import

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about columns it renames; nothing is lost by it
        atoms = next(iter(read_xyz(io.StringIO(text), index=0)), None)
    if atoms is None:
        raise ParseError("The frame holds no atoms")
    return atoms
