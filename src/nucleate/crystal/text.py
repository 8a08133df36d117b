"""Bytes of a structure file as text, and which format a text is in."""

from __future__ import annotations

import codecs
import re
from typing import Literal

from nucleate.errors import ParseError

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_BINARY_FORMATS = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstandard"),
    (b"PK\x03\x04", "zip"),
    (b"%PDF", "PDF"),
    (b"\x89HDF", "HDF5"),
    (b"\x89PNG", "PNG"),
    (b"PAR1", "Parquet"),
    (b"\x7fELF", "executable"),
    (b"SQLite format", "SQLite"),
)
_CONTROL = re.compile(
    "[\x00-\x08\x0e-\x1a\x1c-\x1f]"
)  # tab, line ends, form feed and escape may occur in text
_CIF_TAG = re.compile(r"^[ \t]*_(?:cell|atom_site)[_.]", re.IGNORECASE | re.MULTILINE)
_CIF_BLOCK = re.compile(r"^[ \t]*data_", re.IGNORECASE | re.MULTILINE)
_POSCAR_SCALE = re.compile(r"[ \t]*[^\n]*\n[ \t]*[-+]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][-+]?\d+)?(?:[ \t]|\r?\n)")


def decode_text(data: bytes, *, name: str) -> str:
    """Text of a file: UTF-8, UTF-16 or UTF-32 (by byte order mark or NUL pattern), otherwise Latin-1.

    Args:
        data: the whole file.
        name: what to call it in an error.

    Raises:
        ParseError: binary data, or bytes that contradict their byte order mark.
    """
    for magic, kind in _BINARY_FORMATS:
        if data.startswith(magic):
            raise ParseError(f"{name} is a {kind} file, not text")
    encoding = next((codec for mark, codec in _BYTE_ORDER_MARKS if data.startswith(mark)), None)
    if encoding is None:
        head = data[:512]
        if len(head) >= 4 and head[1::2].count(0) > 0.9 * len(head[1::2]) and not head[::2].count(0):
            encoding = "utf-16-le"
        elif len(head) >= 4 and head[::2].count(0) > 0.9 * len(head[::2]) and not head[1::2].count(0):
            encoding = "utf-16-be"
    if encoding is not None:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError as error:
            raise ParseError(f"{name} is not valid {encoding} at byte {error.start}") from error
    else:
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            text = data.decode("latin-1")  # never fails; what it makes of binary data is caught below
    control = _CONTROL.search(text)
    if control is not None:
        raise ParseError(
            f"{name} is not text but binary or damaged: byte {ord(control[0])} at character {control.start()}"
        )
    return text


def text_format(text: str, *, name: str = "the text") -> Literal["CIF", "POSCAR"]:
    """Format of a structure given as text.

    CIF if a line begins with ``_cell`` or ``_atom_site``; POSCAR if the second line begins with a number; CIF
    again if a line begins with ``data_`` (a block without atoms).

    Raises:
        ParseError: neither; a single line (a path is not read here) is named as such.
    """
    if "\n" not in text.strip():
        raise ParseError(
            f"{name} is the single line {text.strip()[:80]!r}: CIF or POSCAR text is expected here, "
            "not a path; open the file and pass what is in it"
        )
    if _CIF_TAG.search(text):
        return "CIF"
    if _POSCAR_SCALE.match(text):
        return "POSCAR"
    if _CIF_BLOCK.search(text):
        return "CIF"
    raise ParseError(f"{name} is neither CIF (no data_ block) nor POSCAR (no scale factor in line 2)")
