"""What every source of crystals yields: a structure with properties and provenance, or why there is none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

from nucleate.crystal.unit_cell import UnitCell
from nucleate.data.categories import UNREADABLE

PropertyValue: TypeAlias = float | int | str | bool | list[Any] | None


@dataclass(frozen=True)
class Provenance:
    """Where one record came from, exactly enough to find it again.

    Attributes:
        source: short name of the data set or kind of file: ``"jarvis_dft3d"``, ``"structure_files"``.
        file: path, ``archive!member`` or URL it was read from.
        row: index of the row (from 0), name of the archive member, or id in the service.
        database_id: the record's own id in its database, None where there is none.
        licence: terms of use as far as the source states them, None where unknown.
        url: page of the record or of the data set.
        reference: what to cite.
    """

    source: str
    file: str
    row: int | str
    database_id: str | None = None
    licence: str | None = None
    url: str | None = None
    reference: str | None = None


@dataclass(frozen=True, eq=False)
class Record:
    """One crystal as its source states it, not yet encoded.

    Attributes:
        id: name of the record, the source's own where it has one; uniqueness is the builder's to check.
        structure: the unit cell in the source's setting and frame.
        properties: scalars, text, flags and nested lists (tensors). What the source leaves empty (NaN,
            null, "") is absent here, not an error.
        units: unit of each property whose unit is known; a key of ``units`` is always a key of
            ``properties``.
        provenance: file, row, licence and citation.
    """

    id: str
    structure: UnitCell
    properties: Mapping[str, PropertyValue]
    units: Mapping[str, str]
    provenance: Provenance


@dataclass(frozen=True)
class Rejection:
    """One input that gave no record, and why, in one sentence.

    Attributes:
        file: path, ``archive!member`` or URL.
        row: index of the row (from 0), member or id; None when the whole file is meant.
        id: id of the record as far as it could be read.
        reason: one sentence.
        category: one or two words to count by (``nucleate.data.categories``).
    """

    file: str
    row: int | str | None
    id: str | None
    reason: str
    category: str = UNREADABLE


@dataclass(frozen=True)
class Task:
    """One piece of a source that a worker reads on its own; small, picklable, the unit of resuming.

    Attributes:
        key: unique within the source and the same each time an unchanged source is opened.
        file: file, archive or URL to read.
        first: index of the first row, member or byte (the source's own meaning).
        count: number of inputs (records and rejections) the task holds, None where only reading tells.
        details: what else the source needs to read it: byte ranges, member names, a service's filter.
        problem: set when the input is already known to be unreadable; reading the task then yields one
            rejection.
    """

    key: str
    file: str
    first: int = 0
    count: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None


@runtime_checkable
class Source(Protocol):
    """A picklable description of a place where crystals come from; opening one reads as little as possible.

    Attributes:
        name: short name that goes into each record's provenance.
        units: units of the properties, as far as the source knows them before reading.
        licence: terms of use of the whole, None where unknown.
    """

    @property
    def name(self) -> str:
        """Short name that goes into each record's provenance."""
        ...

    @property
    def units(self) -> Mapping[str, str]:
        """Units of the properties, as far as the source knows them before reading."""
        ...

    @property
    def licence(self) -> str | None:
        """Terms of use of the whole, None where unknown."""
        ...

    def tasks(self) -> Iterable[Task]:
        """Pieces to read, in a fixed order; indexing a big file streams through it, so iterate lazily.

        Raises:
            SourceError: the source as a whole is out of reach (a missing extra, a service that does not
                answer).
        """
        ...

    def read(self, task: Task) -> Iterator[Record | Rejection]:
        """Records and rejections of one task, in a fixed order, streamed.

        A damaged input gives a rejection and the rest goes on; only a service that stays out of reach raises.

        Raises:
            SourceError: the service does not answer after all retries; the task may be read again later.
        """
        ...
