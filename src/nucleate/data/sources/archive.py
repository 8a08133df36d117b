"""Members of zip and tar archives, read in memory, never written to disk, their tricks refused by name."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from nucleate.data.sources.byte_stream import ByteStream
from nucleate.errors import SourceError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
#: One structure of 100,000 atoms is about 10 MB of CIF; anything larger is not a structure file.
MAX_MEMBER_BYTES = 64 * 2**20
#: Text compresses about 5 to 20 times, a bomb of zeros 1000 times.
MAX_RATIO = 200
_RATIO_COUNTS_FROM = 2**20
_MAX_STREAM_RATIO = 400
_STREAM_RATIO_COUNTS_FROM = 512 * 2**20
_DAMAGED = (
    EOFError,
    OSError,
    ValueError,
    RuntimeError,
    NotImplementedError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    tarfile.TarError,
)


@dataclass(frozen=True)
class Member:
    """One entry of an archive: its name and content, or why it is not read."""

    index: int
    name: str
    content: bytes | None = None
    problem: str | None = None


def is_archive(path: str) -> bool:
    """Whether the file's name is that of an archive."""
    return path.lower().endswith(SUFFIXES)


def name_problem(name: str) -> str | None:
    """Why a member's name is refused, None where it is an ordinary relative path."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or "\x00" in name:
        return "The member has no usable name."
    if parts[0] == "/" or (len(name) > 1 and name[1] == ":"):
        return "The member's name is an absolute path."
    if ".." in parts:
        return "The member's name points outside the archive (..)."
    return None


def count_members(path: str) -> int:
    """Number of members that are not directories.

    Raises:
        SourceError: the archive cannot be read at all; a tar that breaks off counts up to there.
    """
    if path.lower().endswith(".zip"):
        with closing(_open_zip(path)) as archive:
            return sum(not info.is_dir() for info in archive.infolist())
    return sum(1 for _ in _iter_tar(path, 0, 0))


def iter_members(path: str, first: int, count: int) -> Iterator[Member]:
    """Members ``first`` to ``first + count``, directories not counted; damage is the problem of the last one.

    Raises:
        SourceError: the archive cannot be read at all.
    """
    if path.lower().endswith(".zip"):
        yield from _iter_zip(path, first, count)
    else:
        yield from _iter_tar(path, first, count)


def _open_zip(path: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except _DAMAGED as error:
        raise SourceError(f"The zip archive is damaged or cut short ({error}).") from error


def _iter_zip(path: str, first: int, count: int) -> Iterator[Member]:
    with closing(_open_zip(path)) as archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
        for index, info in enumerate(infos[first : first + count], first):
            problem = name_problem(info.filename) or _zip_entry_problem(info)
            content = None
            if problem is None:
                try:
                    with archive.open(info) as stream:
                        content, problem = _read_bounded(stream)
                except _DAMAGED as error:
                    problem = f"The member is damaged ({error})."
            yield Member(index, info.filename, content, problem)


def _zip_entry_problem(info: zipfile.ZipInfo) -> str | None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return "The member is a link or a device, not a file."
    if info.flag_bits & 1:
        return "The member is encrypted; unpack the archive first."
    if info.file_size > MAX_MEMBER_BYTES:
        return _too_large(info.file_size)
    if info.file_size > _RATIO_COUNTS_FROM and info.file_size > MAX_RATIO * max(info.compress_size, 1):
        return f"The member expands {info.file_size // max(info.compress_size, 1)} times; that is a zip bomb."
    return None


def _iter_tar(path: str, first: int, count: int) -> Iterator[Member]:
    """Members of a tar; with ``count`` 0 all of them, without their content (for counting)."""
    index = 0
    try:
        with _open_tar_stream(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]
            for info in archive:
                # Every header stays in the archive's list, which for a million members is a gigabyte.
                archive.members = []  # type: ignore[attr-defined]
                stream.check()
                if info.isdir():
                    continue
                index += 1
                if count and index <= first:
                    continue
                if not count:
                    yield Member(index - 1, info.name)
                    continue
                yield _tar_member(archive, info, index - 1)
                if index == first + count:
                    return
            if stream.given % 512:
                # tarfile takes a header that is cut short for the end of the archive
                raise EOFError("the last block is incomplete")
    except _DAMAGED as error:
        if index == 0:
            raise SourceError(f"The tar archive is damaged or cut short ({error}).") from error
        yield Member(
            index, f"member {index}", None, f"The archive breaks off here ({error}); the rest is left out."
        )
    if index == 0:
        raise SourceError("The tar archive is empty.")


def _tar_member(archive: tarfile.TarFile, info: tarfile.TarInfo, index: int) -> Member:
    problem = name_problem(info.name)
    if problem is None and not info.isfile():
        problem = "The member is a link or a device, not a file."
    if problem is None and info.size > MAX_MEMBER_BYTES:
        problem = _too_large(info.size)
    if problem is not None:
        return Member(index, info.name, None, problem)
    stream = archive.extractfile(info)
    content, problem = _read_bounded(stream) if stream else (None, "The member has no content.")
    return Member(index, info.name, content, problem)


def _read_bounded(stream: ByteStream) -> tuple[bytes | None, str | None]:
    """The content, or why not; the size in the header is a claim, so the reading itself is bounded."""
    content = stream.read(MAX_MEMBER_BYTES + 1)
    if len(content) > MAX_MEMBER_BYTES:
        return None, _too_large(len(content))
    return content, None


def _too_large(size: int) -> str:
    limit = MAX_MEMBER_BYTES // 2**20
    return f"The member has {size / 2**20:.0f} MiB, more than the {limit} MiB of a structure file."


class _TarStream:
    """Decompressed bytes of a tar file, which knows by how much it has expanded."""

    def __init__(self, path: str) -> None:
        self._raw = open(path, "rb")  # noqa: SIM115 - closed in __exit__
        magic = self._raw.read(6)
        self._raw.seek(0)
        self._stream: Any = self._raw
        if magic.startswith(b"\x1f\x8b"):
            self._stream = gzip.GzipFile(fileobj=self._raw)
        elif magic.startswith(b"BZh"):
            self._stream = bz2.BZ2File(self._raw)
        elif magic.startswith(b"\xfd7zXZ"):
            self._stream = lzma.LZMAFile(self._raw)  # noqa: SIM115 - closed in __exit__
        self.given = 0

    def read(self, size: int) -> bytes:
        block = self._stream.read(size)
        self.given += len(block)
        if self.given % 2**24 < len(block):
            self.check()
        return block

    def check(self) -> None:
        taken = max(self._raw.tell(), 1)
        if self.given > _STREAM_RATIO_COUNTS_FROM and self.given > _MAX_STREAM_RATIO * taken:
            raise ValueError(f"it expands {self.given // taken} times, that is a bomb")

    def __enter__(self) -> _TarStream:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._stream is not self._raw:
            self._stream.close()
        self._raw.close()


def _open_tar_stream(path: str) -> _TarStream:
    if os.path.getsize(path) == 0:
        raise SourceError("The file is empty.")
    return _TarStream(path)
