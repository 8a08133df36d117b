"""File names from record ids: safe on every file system, readable, never two the same, never too long."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

import numpy as np

LONGEST_STEM = 120  # bytes; with the ending far below the 255 of common file systems
_MARK_LENGTH = 16

_ALLOWED = re.compile(r"[^A-Za-z0-9._+=-]+")
_MARK = re.compile(rf"(?i)(^|-)[0-9a-f]{{{_MARK_LENGTH}}}$")
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|clock\$|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?")


def safe_stem(record_id: str) -> str:
    """File name without ending for an id: the id itself where that is safe, else a cleaned one with a mark.

    Safe means ASCII letters, digits and ``. _ + = -``, no dot at either end or doubled (``..``), no leading
    dash, no name that Windows reserves (``con``, ``lpt1``, also with an ending), at most 120 characters. The
    mark is the start of the id's hash, so that two ids cleaned alike stay apart; an id that ends like a mark
    gets one itself.
    """
    cleaned = _ALLOWED.sub("_", record_id)
    cleaned = re.sub(r"\.{2,}", "_", cleaned).strip(".").lstrip("-")
    taken = _RESERVED.fullmatch(cleaned) or _MARK.search(cleaned)
    if cleaned == record_id and cleaned and not taken and len(cleaned) <= LONGEST_STEM:
        return cleaned
    return marked_stem(record_id)


def marked_stem(record_id: str) -> str:
    """Cleaned id with the mark of its hash."""
    cleaned = _ALLOWED.sub("_", record_id)
    cleaned = re.sub(r"\.{2,}", "_", cleaned).strip("._-")
    if _RESERVED.fullmatch(cleaned):
        cleaned = f"_{cleaned}"
    mark = hashlib.blake2b(record_id.encode("utf-8", "surrogatepass")).hexdigest()[:_MARK_LENGTH]
    kept = cleaned[: LONGEST_STEM - _MARK_LENGTH - 1].rstrip(".")
    return f"{kept}-{mark}" if kept else mark


class FileNames:
    """Names for all ids of a store; ids whose names differ in upper and lower case only are marked as well.

    Which ids need a mark follows from the set of all ids, so the names are the same in any order and on every
    run. Eight bytes per id are held while they are compared.
    """

    def __init__(self, ids: Iterable[str]) -> None:
        self._crowded: frozenset[int] = frozenset()
        hashes = np.fromiter((_folded(safe_stem(i)) for i in ids), dtype=np.uint64)
        values, counts = np.unique(hashes, return_counts=True)
        self._crowded = frozenset(values[counts > 1].tolist())

    def stem(self, record_id: str) -> str:
        """Name of the record's file, without ending."""
        stem = safe_stem(record_id)
        return marked_stem(record_id) if _folded(stem) in self._crowded else stem


def _folded(stem: str) -> int:
    """64-bit hash of a name on a file system that does not tell upper from lower case."""
    return int.from_bytes(hashlib.blake2b(stem.casefold().encode(), digest_size=8).digest(), "little")
