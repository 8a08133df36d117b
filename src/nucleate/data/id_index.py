"""Where each id of a store is: sorted 64-bit hashes with row numbers, 16 bytes per record."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nucleate.data.folder import Folder, LocalFolder
from nucleate.errors import StoreError
from nucleate.shapes import Int

INDEX_FOLDER = "index"


def id_hashes(ids: Sequence[str]) -> np.ndarray:
    """64-bit hash of each id; two ids may share one, so a hit is confirmed against the id itself."""
    digests = b"".join(hashlib.blake2b(i.encode(), digest_size=8).digest() for i in ids)
    return np.frombuffer(digests, dtype="<u8")


@dataclass(frozen=True, eq=False)
class IdIndex:
    """Hashes (unsigned 64-bit) in ascending order and the row of the record each belongs to."""

    hashes: np.ndarray
    rows: Int[np.ndarray, "ids"]

    def candidates(self, record_id: str) -> Int[np.ndarray, "hits"]:
        """Rows whose id has the same hash as ``record_id``, in ascending order; nearly always none or one."""
        wanted = id_hashes([record_id])[0]
        first = np.searchsorted(self.hashes, wanted, side="left")
        last = np.searchsorted(self.hashes, wanted, side="right")
        return np.asarray(self.rows[first:last])

    def contains(self, hashes: np.ndarray) -> np.ndarray:
        """Whether each of ``hashes`` occurs."""
        if len(self.hashes) == 0:
            return np.zeros(len(hashes), dtype=bool)
        places = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        return np.asarray(self.hashes[places] == hashes)

    def repeated(self) -> Int[np.ndarray, "hits"]:
        """Rows whose hash occurs more than once, in ascending order."""
        same = self.hashes[1:] == self.hashes[:-1]
        repeated = np.zeros(len(self.hashes), dtype=bool)
        repeated[1:] |= same
        repeated[:-1] |= same
        return np.sort(self.rows[repeated])

    def without(self, dropped: Int[np.ndarray, "dropped"]) -> IdIndex:
        """Index after the rows ``dropped`` (ascending) were taken out and the following ones moved up."""
        kept = ~np.isin(self.rows, dropped)
        rows = self.rows[kept]
        return IdIndex(self.hashes[kept], rows - np.searchsorted(dropped, rows))


def build_index(batches: Iterable[Sequence[str]]) -> IdIndex:
    """Index of the ids of a store, streamed in the order of its rows."""
    parts = [id_hashes(ids) for ids in batches]
    hashes = np.concatenate(parts) if parts else np.empty(0, dtype="<u8")
    order = np.argsort(hashes, kind="stable")
    return IdIndex(hashes[order], order.astype("<i8"))


def index_file(content_hash: str) -> str:
    """Name of the sidecar; it carries the content hash, so an index of other content is never used."""
    return f"{INDEX_FOLDER}/ids-{content_hash[:16]}.npy"


def write_index(folder: Folder, content_hash: str, index: IdIndex) -> None:
    """Write the sidecar."""
    pairs = np.stack([index.hashes.astype("<u8"), index.rows.astype("<u8")])
    buffer = io.BytesIO()
    np.save(buffer, pairs)
    folder.write_bytes(index_file(content_hash), buffer.getvalue())


def read_index(folder: Folder, content_hash: str, num_records: int) -> IdIndex | None:
    """The sidecar, mapped instead of read where it is local; None where there is none or it is damaged."""
    name = index_file(content_hash)
    if not folder.exists(name):
        return None
    try:
        if isinstance(folder, LocalFolder):
            pairs = np.load(folder.path / name, mmap_mode="r", allow_pickle=False)
        else:
            pairs = np.load(io.BytesIO(folder.read_bytes(name)), allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None  # it is derived from the shards and is built again
    if pairs.shape != (2, num_records) or pairs.dtype != np.dtype("<u8"):
        return None
    return IdIndex(pairs[0], pairs[1].view("<i8"))


def unknown_id(record_id: str, location: str, num_records: int) -> StoreError:
    """What to raise about an id that is not there."""
    return StoreError(
        f"No record {record_id!r} among the {num_records:,} of {location}: "
        "ids are written as in the source; `rejected.csv` says which inputs were left out"
    )
