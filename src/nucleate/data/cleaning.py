"""From a record of a source to an encoded crystal, or why it is left out, as a sentence and a category."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from nucleate.crystal import EncodedStructure, UnitCell, encode, pseudo_symmetry
from nucleate.data.categories import NO_ID, UNEXPECTED, category_of
from nucleate.data.record import Record
from nucleate.errors import NucleateError, StoreError


@dataclass(frozen=True)
class EncodingSettings:
    """How structures are encoded.

    Attributes:
        symprec: tolerance of the symmetry search, Å.
        max_atoms: cells with more atoms are left out.
        max_displacement: structures that had to move further (Å) are left out; None leaves it to the encoder.
        max_strain: structures that had to be strained more are left out; None leaves it to the encoder.
        keep_frame: also keep the way back to the source's own cell and frame.
        pseudo_symmetry: also find the space group at 0.1, 0.01 and 0.001 Å, at about the cost of a second
            encoding.
    """

    symprec: float = 0.01
    max_atoms: int = 1000
    max_displacement: float | None = None
    max_strain: float | None = None
    keep_frame: bool = False
    pseudo_symmetry: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.symprec < 10:
            raise StoreError(f"symprec must lie between 0 and 10 Å, got {self.symprec}")
        if self.max_atoms < 1:
            raise StoreError(f"max_atoms must be at least 1, got {self.max_atoms}")

    def encode(self, structure: UnitCell) -> EncodedStructure:
        """The structure as its exact asymmetric unit."""
        limits = {"max_displacement": self.max_displacement, "max_strain": self.max_strain}
        stated: dict[str, Any] = {name: limit for name, limit in limits.items() if limit is not None}
        return encode(structure, symprec=self.symprec, max_atoms=self.max_atoms, **stated)

    def space_groups(self, structure: UnitCell) -> dict[float, int | None]:
        """Space group at each tolerance in Å where asked for, else empty; None where the search fails."""
        return pseudo_symmetry(structure) if self.pseudo_symmetry else {}

    def to_json(self) -> dict[str, Any]:
        """The settings as they stand in the manifest."""
        return asdict(self)


@dataclass(frozen=True)
class LeftOut:
    """One input that is not in the store: a line of ``rejected.csv``.

    Attributes:
        file: path, ``archive!member`` or URL.
        row: index of the row, member or id; empty where the whole file is meant.
        id: id as far as it could be read.
        category: one or two words to count by.
        reason: one sentence.
    """

    file: str
    row: str
    id: str
    category: str
    reason: str


def left_out(record: Record, category: str, reason: str) -> LeftOut:
    """The line of ``rejected.csv`` for a record."""
    return LeftOut(record.provenance.file, str(record.provenance.row), record.id, category, one_line(reason))


@dataclass(frozen=True)
class Cleaned:
    """A record that is fit for the store.

    Attributes:
        encoded: its encoding.
        space_groups: space group at each tolerance in Å, empty where not asked for.
    """

    encoded: EncodedStructure
    space_groups: dict[float, int | None]


def clean(record: Record, settings: EncodingSettings) -> Cleaned | LeftOut:
    """The encoding of a record, or why there is none; no record stops the others."""
    if not record.id.strip():
        return left_out(record, NO_ID, "The record has no id: name the column that holds it")
    try:
        encoded = settings.encode(record.structure)
        # The keys are computed on first use: here, so that a failure costs this record only.
        encoded.crystal.bucket_key  # noqa: B018
        encoded.crystal.handedness  # noqa: B018
        return Cleaned(encoded, settings.space_groups(record.structure))
    except NucleateError as error:
        return left_out(record, category_of(error), str(error))
    except MemoryError:
        raise
    except Exception as error:
        # A library that fails on one structure in a million must not end a build of days; the type is kept to
        # find it.
        return left_out(record, UNEXPECTED, f"{type(error).__name__}: {error}")


def one_line(text: str, limit: int = 1000) -> str:
    """``text`` on one line, cut at ``limit`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
