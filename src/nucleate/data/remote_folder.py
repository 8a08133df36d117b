"""A folder behind an fsspec URL; what its driver raises becomes one sentence with the way out."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nucleate.errors import StoreError

# Places without folders: there is nothing to make before a file, and making it could create a bucket.
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "az", "oss", "memory"})

# Errors of these packages say that the place cannot be reached; by name, since no driver need be installed.
_DRIVER_PACKAGES = frozenset(
    {
        "botocore",
        "aiobotocore",
        "boto3",
        "s3fs",
        "gcsfs",
        "google",
        "azure",
        "adlfs",
        "ossfs",
        "oss2",
        "aiohttp",
        "requests",
        "urllib3",
        "paramiko",
    }
)
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile; AWS_ENDPOINT_URL_S3 for other services",
    "s3a": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile; AWS_ENDPOINT_URL_S3 for other services",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or `gcloud auth application-default login`",
    "gcs": "GOOGLE_APPLICATION_CREDENTIALS, or `gcloud auth application-default login`",
    "abfs": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}


def is_driver_error(error: BaseException) -> bool:
    """Whether the error says that a place cannot be reached: of the system, or of a driver's own packages."""
    packages = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return isinstance(error, OSError) or not packages.isdisjoint(_DRIVER_PACKAGES)


class RemoteFolder:
    """A folder behind an fsspec URL; an object store shows an upload only when it is complete.

    Whatever the driver raises (no credentials, no permission, no bucket, no network) is a `StoreError`, but
    for a file that is read and is not there, which is a `FileNotFoundError` as on a disk.
    """

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
            with self._reaching():
                self._filesystem, self._root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise StoreError(
                f"No driver for {self.url} ({error}): install it (s3fs for s3://, gcsfs for gs://), or use a "
                "local folder"
            ) from error
        self._owner = os.getpid()

    @property
    def scheme(self) -> str:
        """Protocol of the URL."""
        return self.url.split("://", 1)[0]

    @contextmanager
    def _reaching(self, *, writing: bool = False) -> Iterator[None]:
        """Turn what the driver raises inside into a `StoreError`; a missing file to read passes through."""
        try:
            yield
        except Exception as error:
            if isinstance(error, FileNotFoundError | NotADirectoryError) and not writing:
                raise
            if not is_driver_error(error):
                raise
            raise self._unreachable(error, "written" if writing else "read") from error

    def _unreachable(self, error: BaseException, what: str) -> StoreError:
        said = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        if isinstance(error, FileNotFoundError) and "bucket" not in said.lower():
            said = f"not found: {said}"
        names = _CREDENTIALS.get(self.scheme)
        credentials = f" ({names})" if names else ""
        return StoreError(
            f"{self.url} cannot be {what} ({type(error).__name__}: {said[:300]}): check the address, the "
            f"network and the credentials{credentials}, or use a local folder"
        )

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
        if self.scheme not in OBJECT_STORES:
            self.filesystem.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        return path

    def names(self, subfolder: str = "") -> list[str]:
        """Sorted names of the files directly inside ``subfolder``; empty where it does not exist."""
        try:
            with self._reaching():
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
            with self._reaching():
                information = self.filesystem.info(self._path(name))
        except (FileNotFoundError, NotADirectoryError):
            return -1
        return int(information["size"]) if information["type"] == "file" else -1

    def open(self, name: str) -> Any:
        """Seekable binary file that fetches the byte ranges it is asked for."""
        with self._reaching():
            return _RemoteFile(self, self.filesystem.open(self._path(name), "rb", cache_type="readahead"))

    def read_bytes(self, name: str) -> bytes:
        """Content of the file."""
        with self._reaching():
            return self.filesystem.cat_file(self._path(name))

    def write_bytes(self, name: str, content: bytes) -> None:
        """Upload the file in one step."""
        with self._reaching(writing=True):
            self.filesystem.pipe_file(self._place(name), content)
            self.filesystem.invalidate_cache()

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Local path to write to; leaving without an error uploads it under its name."""
        with tempfile.TemporaryDirectory(prefix="nucleate-") as scratch:
            local = Path(scratch) / "file"
            yield local
            with self._reaching(writing=True):
                self.filesystem.put_file(str(local), self._place(name))
                self.filesystem.invalidate_cache()

    def remove(self, name: str) -> None:
        """Remove one file; nothing happens where it does not exist."""
        if self.exists(name):
            with self._reaching(writing=True):
                self.filesystem.rm_file(self._path(name))
                self.filesystem.invalidate_cache()

    def remove_tree(self, subfolder: str) -> None:
        """Remove a subfolder with everything in it; nothing happens where it does not exist."""
        with suppress(FileNotFoundError), self._reaching():
            self.filesystem.rm(self._path(subfolder), recursive=True)
        self.filesystem.invalidate_cache()

    def remove_unfinished(self, subfolder: str) -> None:
        """Nothing: an upload that did not finish is not there."""


class _RemoteFile:
    """An open remote file whose reads raise `StoreError` where the driver fails half-way."""

    def __init__(self, folder: RemoteFolder, file: Any) -> None:
        self._folder, self._file = folder, file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        """The next ``size`` bytes, all that is left without."""
        with self._folder._reaching():
            return self._file.read(size)
