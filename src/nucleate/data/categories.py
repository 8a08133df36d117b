"""Under which words inputs that are left out are counted."""

from __future__ import annotations

from nucleate.errors import (
    DisorderedStructureError,
    InvalidStructureError,
    ParseError,
    SourceError,
    StructureTooLargeError,
    SymmetryError,
    WyckoffError,
)

UNREADABLE = "unreadable"
DUPLICATE_ID = "duplicate id"
NO_ID = "no id"
UNEXPECTED = "unexpected error"

# First match wins: the narrower type stands before the one it derives from.
_CATEGORIES: tuple[tuple[type[Exception], str], ...] = (
    (DisorderedStructureError, "disordered"),
    (StructureTooLargeError, "too large"),
    (InvalidStructureError, "not a crystal"),
    (SymmetryError, "symmetry"),
    (WyckoffError, "orbits"),
    (ParseError, "unreadable"),
    (SourceError, "unreadable"),
)


def category_of(error: BaseException) -> str:
    """Category under which an error of reading or encoding is counted; foreign errors are unreadable inputs."""
    return next((name for kind, name in _CATEGORIES if isinstance(error, kind)), UNREADABLE)
