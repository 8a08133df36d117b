"""The little of a binary file that readers need: files, decompressors and archive members all have it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class ByteStream(Protocol):
    """Bytes that are read forward, by line or by size, and from an offset."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, at most ``size``."""
        ...

    def readline(self, size: int = -1, /) -> bytes:
        """The next line with its end, at most ``size`` bytes."""
        ...

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to an offset; decompressors do so by reading up to it."""
        ...

    def close(self) -> None:
        """Close it."""
        ...
