"""Digest of a record and of a whole store: the same in any order, in any shards, with any workers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from nucleate.crystal import Crystal
from nucleate.data.property_values import property_kind

DIGEST_BYTES = 16
_MODULUS = 1 << (8 * DIGEST_BYTES)


def record_digest(record_id: str, crystal: Crystal, properties: Mapping[str, Any]) -> bytes:
    """BLAKE2b-128 over the id, the encoded crystal to the last bit and the properties, without provenance.

    Where a record was read from does not count: moving a folder of files leaves the digest as it is. A number
    counts by its value, so that 1 and 1.0 (the same cell of a table, read in two chunks) are one.
    """
    state = hashlib.blake2b(digest_size=DIGEST_BYTES)
    crystal_bytes = [
        np.array([crystal.space_group_number], "<i8").tobytes(),
        np.asarray(crystal.wyckoff_indices).astype("<i8").tobytes(),
        np.asarray(crystal.atomic_numbers).astype("<i8").tobytes(),
        (np.asarray(crystal.lattice_params) + 0.0).astype("<f8").tobytes(),
        (np.asarray(crystal.free_coords) + 0.0).astype("<f8").tobytes(),
    ]
    present = {name: _plain(v) for name, v in properties.items() if property_kind(v) is not None}
    text = json.dumps(present, sort_keys=True, ensure_ascii=True)
    for part in (record_id.encode("utf-8", "surrogatepass"), *crystal_bytes, text.encode()):
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.digest()


def _plain(value: Any) -> Any:
    """Integers that a float holds exactly become floats, in nested lists too."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= 2**53:
        return float(value)
    return value


def add_digests(total: int, digests: Iterable[bytes]) -> int:
    """``total`` plus the digests modulo 2^128: a sum does not know the order of its terms."""
    for digest in digests:
        total += int.from_bytes(digest, "little")
    return total % _MODULUS


def subtract_digests(total: int, digests: Iterable[bytes]) -> int:
    """``total`` without records whose digests were added before."""
    for digest in digests:
        total -= int.from_bytes(digest, "little")
    return total % _MODULUS


def content_hash(total: int, num_records: int, split: Mapping[str, Any]) -> str:
    """Hash of a store, 64 hexadecimal digits: of the sum of its record digests and the rule of its split."""
    text = json.dumps(
        {"records": f"{total:032x}", "num_records": num_records, "split": split}, sort_keys=True
    )
    return hashlib.sha256(text.encode()).hexdigest()
