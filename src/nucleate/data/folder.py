"""A folder of files on this machine or behind an fsspec URL, where every file appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from nucleate.errors import StoreError

# A file that is being written carries this prefix; whatever still has it after a crash is rubbish.
TEMPORARY_PREFIX = ".writing-"

# Places without folders: there is nothing to make before a file, and making it could create a bucket.
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "az", "oss", "memory"})


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
    return RemoteFolder(os.fspath(path)) if is_url(path) else LocalFolder(Path(path))


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


class RemoteFolder:
    """A folder behind an fsspec URL; an object store shows an upload only when it is complete."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/") if not url.endswith("://") else url
        self._filesystem: Any = None
        self._root = ""
        self._owner = -1
        self._connect()

    def __getstate__(self) -> dict[str, Any]:
        """Only the URL travels to another process: connections do not."""
        return {"url": self.url}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["url"])  # type: ignore[misc]

    def _connect(self) -> None:
        try:
            import fsspec  # noqa: PLC0415  optional extra, only URLs need it
        except ImportError as error:
            raise StoreError(
                f"{self.url} is a URL and needs fsspec: install nucleate[cloud], or use a local folder"
            ) from error
        try:
            self._filesystem, self._root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise StoreError(
                f"No driver for {self.url} ({error}): install it (s3fs for s3://, gcsfs for gs://), or use a "
                "local folder"
            ) from error
        self._owner = os.getpid()

    @property
    def filesystem(self) -> Any:
        """The fsspec file system, connected anew after a fork (its event loop does not survive one)."""
        if self._owner != os.getpid():
            self._connect()
        return self._filesystem

    @property
    def location(self) -> str:
        """URL as given."""
        return self.url

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}".rstrip("/") if name else self._root

    def _place(self, name: str) -> str:
        path = self._path(name)
        if self.url.split("://", 1)[0] not in OBJECT_STORES:
            self.filesystem.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        return path

    def names(self, subfolder: str = "") -> list[str]:
        """Sorted names of the files directly inside ``subfolder``; empty where it does not exist."""
        try:
            entries = self.filesystem.ls(self._path(subfolder), detail=True, refresh=True)
        except FileNotFoundError:
            return []
        return sorted(entry["name"].rsplit("/", 1)[-1] for entry in entries if entry["type"] == "file")

    def exists(self, name: str) -> bool:
        """Whether the file is there."""
        return self.size(name) >= 0

    def size(self, name: str) -> int:
        """Size of the file in bytes, -1 where it does not exist."""
        try:
            information = self.filesystem.info(self._path(name))
        except (FileNotFoundError, NotADirectoryError):
            return -1
        return int(information["size"]) if information["type"] == "file" else -1

    def open(self, name: str) -> Any:
        """Seekable binary file that fetches the byte ranges it is asked for."""
        return self.filesystem.open(self._path(name), "rb", cache_type="readahead")

    def read_bytes(self, name: str) -> bytes:
        """Content of the file."""
        return self.filesystem.cat_file(self._path(name))

    def write_bytes(self, name: str, content: bytes) -> None:
        """Upload the file in one step."""
        self.filesystem.pipe_file(self._place(name), content)
        self.filesystem.invalidate_cache()

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Local path to write to; leaving without an error uploads it under its name."""
        with tempfile.TemporaryDirectory(prefix="nucleate-") as scratch:
            local = Path(scratch) / "file"
            yield local
            self.filesystem.put_file(str(local), self._place(name))
            self.filesystem.invalidate_cache()

    def remove(self, name: str) -> None:
        """Remove one file; nothing happens where it does not exist."""
        if self.exists(name):
            self.filesystem.rm_file(self._path(name))
            self.filesystem.invalidate_cache()

    def remove_tree(self, subfolder: str) -> None:
        """Remove a subfolder with everything in it; nothing happens where it does not exist."""
        with suppress(FileNotFoundError):
            self.filesystem.rm(self._path(subfolder), recursive=True)
        self.filesystem.invalidate_cache()

    def remove_unfinished(self, subfolder: str) -> None:
        """Nothing: an upload that did not finish is not there."""
