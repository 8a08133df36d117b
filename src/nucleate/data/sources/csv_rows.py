"""Rows of a delimited table, streamed from any byte offset, and what to do when one of them is broken.

Quoted cells (a CIF) run over many lines, so that a lost quotation mark would swallow every row behind it. A
row with the wrong number of cells is therefore followed by a search for the next line from which rows are
whole again.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import sys
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nucleate.data.sources.byte_stream import ByteStream
from nucleate.errors import ParseError

MAX_LINE_BYTES = 16 * 2**20
MAX_ROW_BYTES = 32 * 2**20
MAX_SEARCHED_LINES = 20_000
MAX_SEARCHED_BYTES = 256 * 2**20
#: What the decompressors raise on a stream that is cut short or damaged.
DAMAGED_STREAM = (EOFError, OSError, zlib.error, lzma.LZMAError)


@dataclass(frozen=True)
class TableRow:
    """One row: where it starts (bytes, uncompressed), and its cells or what is wrong with it."""

    offset: int
    cells: tuple[str, ...] = ()
    problem: str | None = None


def open_table(path: str) -> ByteStream:
    """The table's bytes, decompressed by the file's name (.gz, .bz2, .xz), buffered and seekable."""
    if path.lower().endswith(".gz"):
        return io.BufferedReader(gzip.open(path))  # type: ignore[arg-type]
    if path.lower().endswith(".bz2"):
        return io.BufferedReader(bz2.open(path))  # type: ignore[arg-type]
    if path.lower().endswith(".xz"):
        return io.BufferedReader(lzma.open(path))  # type: ignore[arg-type]
    return open(path, "rb")


def read_header(stream: ByteStream, offset: int, delimiter: str) -> tuple[tuple[str, ...], int]:
    """Names of the columns, and the offset of the first row.

    Raises:
        ParseError: the first row is not CSV, or two columns have the same name.
    """
    stream.seek(offset)
    lines = _Lines(stream, offset)
    try:
        cells = next(csv.reader(lines, delimiter=delimiter, strict=True), [])
    except csv.Error as error:
        raise ParseError(f"The header cannot be read as CSV: {error}.") from error
    columns = tuple(_decode_name(cell) for cell in cells)
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if twice:
        raise ParseError(f"The table has more than one column {twice[0]!r}; rename them.")
    return columns, lines.position


def _decode_name(cell: str) -> str:
    raw = cell.encode("latin-1")
    try:
        return raw.decode("utf-8").strip()
    except UnicodeDecodeError:
        return cell.strip()


def iter_rows(
    stream: ByteStream,
    offset: int,
    *,
    delimiter: str,
    num_cells: int,
    is_row: Callable[[tuple[str, ...]], bool],
) -> Iterator[TableRow]:
    """Rows from ``offset`` on, cells decoded as Latin-1, which keeps every byte for the caller to decode.

    Args:
        stream: seekable bytes of the table.
        offset: where a row starts.
        delimiter: character between cells.
        num_cells: number of cells of a whole row.
        is_row: whether cells of the right number look like a row; decides where to go on behind a broken one.

    Raises:
        ParseError: no whole row follows a broken one within the search window, or a line is absurdly long.
        OSError, EOFError, zlib.error, lzma.LZMAError: the compressed stream is damaged.
    """
    # A cell longer than csv's default of 128 KiB is an ordinary CIF of some thousand atoms. The limit is
    # global in csv; raising it is the only way, and MAX_ROW_BYTES bounds memory in its place.
    csv.field_size_limit(min(sys.maxsize, MAX_ROW_BYTES))
    stream.seek(offset)
    lines = _Lines(stream, offset)
    while True:
        lines.begin()
        start = lines.position
        problem: str | None = None
        cells: tuple[str, ...] = ()
        try:
            cells = tuple(next(csv.reader(lines, delimiter=delimiter, strict=True)))
        except StopIteration:
            return
        except csv.Error as error:
            problem = f"The row cannot be read as CSV: {error}."
        if problem is None and not cells:
            continue  # a blank line
        if problem is None and len(cells) != num_cells:
            problem = f"The row has {len(cells)} cells, the header has {num_cells}."
        if problem is None:
            yield TableRow(start, cells)
            continue
        _skip_to_whole_row(lines, delimiter, num_cells, is_row, start)
        yield TableRow(start, problem=problem)


class _Lines:
    """Lines of a stream as text, with a way to put the ones taken since ``begin`` back."""

    def __init__(self, stream: ByteStream, position: int) -> None:
        self._stream = stream
        self._waiting: deque[bytes] = deque()
        self._taken: list[bytes] = []
        self._row_bytes = 0
        self.position = position

    def begin(self) -> None:
        self._taken.clear()
        self._row_bytes = 0

    def put_back(self, keep: int) -> None:
        """Keep the first ``keep`` lines taken since ``begin`` and put the others back."""
        back = self._taken[keep:]
        self._waiting.extendleft(reversed(back))
        self.position -= sum(map(len, back))
        del self._taken[keep:]
        self._row_bytes = sum(map(len, self._taken))

    @property
    def num_taken(self) -> int:
        return len(self._taken)

    @property
    def taken_bytes(self) -> int:
        return self._row_bytes

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._row_bytes > MAX_ROW_BYTES:
            raise csv.Error(f"it is longer than {MAX_ROW_BYTES // 2**20} MiB")
        line = self._waiting.popleft() if self._waiting else self._stream.readline(MAX_LINE_BYTES)
        if not line:
            raise StopIteration
        if len(line) >= MAX_LINE_BYTES and not line.endswith(b"\n"):
            raise ParseError(
                f"A line is longer than {MAX_LINE_BYTES // 2**20} MiB; this is not a table of text."
            )
        self._taken.append(line)
        self._row_bytes += len(line)
        self.position += len(line)
        return line.decode("latin-1")


def _skip_to_whole_row(
    lines: _Lines, delimiter: str, num_cells: int, is_row: Callable[[tuple[str, ...]], bool], start: int
) -> None:
    """Leave ``lines`` before the next whole row (or at the end of the table)."""
    natural_end = lines.num_taken
    searched = 0
    for skipped in [natural_end, *range(1, MAX_SEARCHED_LINES)]:
        lines.put_back(skipped)
        while lines.num_taken < skipped:  # the search has passed what was read of the broken row
            if next(lines, None) is None:
                return
        try:
            cells = tuple(next(csv.reader(lines, delimiter=delimiter, strict=True)))
            whole = len(cells) == num_cells and is_row(cells)
        except StopIteration:
            if skipped == natural_end:
                continue  # the broken row swallowed the rest: look for rows inside it
            return
        except csv.Error:
            whole = False
        searched += lines.taken_bytes
        if whole:
            lines.put_back(skipped)
            return
        if searched > MAX_SEARCHED_BYTES:
            break
    raise ParseError(
        f"No whole row follows the broken one at byte {start} within {MAX_SEARCHED_LINES} lines; "
        "the rest of the table is left out."
    )
