"""Results on disk by content key: appended, never rewritten, safe with several processes and after a crash."""

from __future__ import annotations

import errno
import json
import os
import uuid
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from nucleate.errors import CacheError


class ResultCache:
    """A dictionary from keys to JSON values that lives in a folder.

    Each process appends lines ``checksum key value`` to a file of its own (``*.jsonl``), so processes never write to
    one file and need no lock; on a line broken by a crash or a full disk the checksum fails and the line is as if it
    had not been written. Nothing is executed or unpickled on reading. Opened caches see what others wrote before; call
    ``refresh`` to see what they wrote since. When two processes compute the same result both lines stay, and either is
    read.

    Only keys and offsets are held in memory (about 150 bytes a result).

    Args:
        folder: made if it is not there.

    Raises:
        CacheError: the folder cannot be made or read.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.damaged_lines = 0
        self._places: dict[str, tuple[str, int]] = {}
        self._read_up_to: dict[str, int] = {}
        self._own_name = ""
        self._own_process = 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.refresh()
        except OSError as error:
            raise CacheError(f"{self.folder} cannot be used as a cache ({error})") from error

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def refresh(self) -> None:
        """Take note of what other processes have written."""
        for path in sorted(self.folder.glob("*.jsonl")):
            start = self._read_up_to.get(path.name, 0)
            with path.open("rb") as file:
                file.seek(start)
                for line in file:
                    if not line.endswith(b"\n"):  # being written, or broken off
                        break
                    key = _key(line)
                    if key is None:
                        self.damaged_lines += 1
                    else:
                        self._places[key] = (path.name, start)
                    start += len(line)
            self._read_up_to[path.name] = start

    def get(self, key: str) -> Any | None:
        """The value of a key, None if there is none."""
        place = self._places.get(key)
        if place is None:
            return None
        name, offset = place
        try:
            with (self.folder / name).open("rb") as file:
                file.seek(offset)
                line = file.readline()
        except OSError:
            line = b""
        if _key(line) != key:  # the file was changed or removed under us
            del self._places[key]
            return None
        return json.loads(line[line.index(b" ", 9) + 1 :])

    def put(self, key: str, value: Any) -> None:
        """Keep a value; it is with the operating system when this returns.

        Raises:
            CacheError: it cannot be written, such as on a full disk. What was there before stays good.
            ValueError: the value is no JSON (NaN included).
        """
        self._write([(key, json.dumps(value, allow_nan=False, separators=(",", ":")).encode())])

    def texts(self, keys: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """(key, JSON) of each key that is there, in the order in which they stand on disk: each file is opened once."""
        places = sorted((*self._places[key], key) for key in keys if key in self._places)
        for name, group in groupby(places, key=itemgetter(0)):
            with (self.folder / name).open("rb") as file:
                for _, offset, key in group:
                    file.seek(offset)
                    line = file.readline()
                    if _key(line) == key:
                        yield key, line[10 + len(key) : -1]

    def take_in(self, other: ResultCache) -> int:
        """Number of the other folder's results that were new; all are written at once.

        Raises:
            CacheError: they cannot be written, such as on a full disk; then none is taken for written.
        """
        new = [(key, text) for key, text in other.texts(other) if key not in self]
        if new:
            self._write(new)
        return len(new)

    def _write(self, results: Sequence[tuple[str, bytes]]) -> None:
        """Lines of keys and JSON texts at the end of this process's file."""
        bodies = [key.encode() + b" " + text for key, text in results]
        lines = [b"%08x %s\n" % (zlib.crc32(body), body) for body in bodies]
        if self._own_process != os.getpid():  # first result, or a forked copy of the cache that wrote before
            self._own_process = os.getpid()
            self._own_name = f"{self._own_process}-{uuid.uuid4().hex[:12]}.jsonl"
        try:
            offset = self._append(b"".join(lines))
        except OSError as error:
            raise CacheError(f"results cannot be kept in {self.folder} ({error})") from error
        for (key, _), line in zip(results, lines):
            self._places[key] = (self._own_name, offset)
            offset += len(line)
        self._read_up_to[self._own_name] = offset

    def _append(self, text: bytes) -> int:
        """Offset at which the text now stands at the end of our own file."""
        path = self.folder / self._own_name
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            offset = os.lseek(descriptor, 0, os.SEEK_END)
            written = os.write(descriptor, text)
            if written != len(text):
                os.ftruncate(descriptor, offset)
                raise OSError(errno.ENOSPC, f"only {written} of {len(text)} bytes were written")
        finally:
            os.close(descriptor)
        return offset


def _key(line: bytes) -> str | None:
    """The key of a line whose checksum is right, None otherwise."""
    if len(line) < 10 or line[8:9] != b" ":
        return None
    body = line[9:].rstrip(b"\n")
    try:
        if int(line[:8], 16) != zlib.crc32(body):
            return None
        key, separator, _ = body.partition(b" ")
        return key.decode("ascii") if separator else None
    except ValueError:
        return None
