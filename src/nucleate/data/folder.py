"""A folder of files on this machine or behind an fsspec URL, where every file appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from nucleate.data.remote_folder import RemoteFolder

# A file that is being written carries this prefix; whatever still has it after a crash is rubbish.
TEMPORARY_PREFIX = ".writing-"


@runtime_checkable
class Folder(Protocol):
    """What a store needs of the place it lies in; names are relative and use forward slashes."""

    @property
    def location(self) -> str:
        """Path or URL as the user would write it."""
        ...

    def names(self, subfolder: str = "") -> list[str]:
        """Sorted names of the finished files directly inside ``subfolder``; empty where it does not exist."""
        ...

    def exists(self, name: str) -> bool:
        """Whether the file is there."""
        ...

    def size(self, name: str) -> int:
        """Size of the file in bytes, -1 where it does not exist."""
        ...

    def open(self, name: str) -> Any:
        """Seekable binary file, or a local path, as pyarrow takes either."""
        ...

    def read_bytes(self, name: str) -> bytes:
        """Content of the file."""
        ...

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write the file in one step: readers see the old content or the new, never a part."""
        ...

    def writing(self, name: str) -> Any:
        """Context manager giving a local path to write to; leaving it without an error publishes the file."""
        ...

    def remove(self, name: str) -> None:
        """Remove one file; nothing happens where it does not exist."""
        ...

    def remove_tree(self, subfolder: str) -> None:
        """Remove a subfolder with everything in it; nothing happens where it does not exist."""
        ...

    def remove_unfinished(self, subfolder: str) -> None:
        """Remove what a killed writer left half-written directly inside ``subfolder``."""
        ...


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is an fsspec URL such as ``s3://bucket/store`` (a drive letter is not)."""
    return "://" in os.fspath(path)


def open_folder(path: str | os.PathLike[str]) -> Folder:
    """Folder at a path or an fsspec URL (``s3://``, ``gs://``, ``memory://``, ...); nothing is created yet.

    Raises:
        StoreError: the URL's protocol is unknown or its driver is not installed.
    """
    if is_url(path):
        return RemoteFolder(os.fspath(path))
    return LocalFolder(Path(path))


class LocalFolder:
    """A folder of this machine's file system; files are written beside their place, synced and renamed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def location(self) -> str:
        """Path as given."""
        return str(self.path)

    def names(self, subfolder: str = "") -> list[str]:
        """Sorted names of the finished files directly inside ``subfolder``; empty where it does not exist."""
        folder = self.path / subfolder
        if not folder.is_dir():
            return []
        with os.scandir(folder) as entries:
            return sorted(e.name for e in entries if e.is_file() and not e.name.startswith(TEMPORARY_PREFIX))

    def exists(self, name: str) -> bool:
        """Whether the file is there."""
        return (self.path / name).is_file()

    def size(self, name: str) -> int:
        """Size of the file in bytes, -1 where it does not exist."""
        try:
            return (self.path / name).stat().st_size
        except OSError:
            return -1

    def open(self, name: str) -> str:
        """Path of the file: pyarrow opens it itself and reads without holding the interpreter."""
        return str(self.path / name)

    def read_bytes(self, name: str) -> bytes:
        """Content of the file."""
        return (self.path / name).read_bytes()

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write the file in one step: readers see the old content or the new, never a part."""
        with self.writing(name) as path:
            path.write_bytes(content)

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Path to write to, beside the final place; leaving without an error syncs and renames it there."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.parent / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
        try:
            yield scratch
            with scratch.open("rb+") as file:
                os.fsync(file.fileno())
            scratch.replace(target)
        except BaseException:
            with suppress(OSError):
                scratch.unlink()
            raise

    def remove(self, name: str) -> None:
        """Remove one file; nothing happens where it does not exist."""
        (self.path / name).unlink(missing_ok=True)

    def remove_tree(self, subfolder: str) -> None:
        """Remove a subfolder with everything in it; nothing happens where it does not exist."""
        shutil.rmtree(self.path / subfolder, ignore_errors=True)

    def remove_unfinished(self, subfolder: str) -> None:
        """Remove what a killed writer left half-written in ``subfolder``."""
        for path in (self.path / subfolder).glob(TEMPORARY_PREFIX + "*"):
            with suppress(OSError):
                path.unlink()
