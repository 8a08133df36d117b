"""Which crystals have a reduced formula in common: the coarsest bucket in which two of them can match."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nucleate.data.store import Store
from nucleate.evaluation.reference import Reference
from nucleate.shapes import Int

NO_FORMULA = 0
_VERSION = 1


def formula_keys(formulas: pa.Array | pa.ChunkedArray) -> Int[np.ndarray, "rows"]:
    """A 63-bit hash of each reduced formula (``O3SrTi``); ``NO_FORMULA`` where there is none.

    Two of a million different formulas share a hash with probability 5e-8; they would be compared and, having
    other sites, not match.
    """
    column = formulas.combine_chunks() if isinstance(formulas, pa.ChunkedArray) else formulas
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], pa.string())
    coded = pc.dictionary_encode(column)
    words = np.array([_hash(text) for text in coded.dictionary.to_pylist()] or [NO_FORMULA], dtype=np.int64)
    places = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return np.where(places < 0, NO_FORMULA, words[np.maximum(places, 0)])


def crystal_keys(table: pa.Table, column: str = "formula") -> Int[np.ndarray, "rows"]:
    """``formula_keys`` of a column of a table of candidates, ``NO_FORMULA`` also where a row is no crystal."""
    encoded = table.column("is_encoded").to_numpy(zero_copy_only=False)
    return np.where(encoded, formula_keys(table.column(column)), NO_FORMULA)


def _hash(text: str | None) -> int:
    digest = hashlib.blake2b((text or "").encode(), digest_size=8).digest()
    return max(int.from_bytes(digest, "little") >> 1, 1) if text else NO_FORMULA


def reference_keys(reference: Reference) -> Int[np.ndarray, "records"]:
    """Formula keys of all records of a reference's store, kept under its content hash; 8 bytes a record."""

    def build() -> dict[str, np.ndarray]:
        parts = [formula_keys(batch.column(0)) for batch in _formulas(reference.store)]
        return {"keys": np.concatenate([np.zeros(0, np.int64), *parts])}

    return reference.cached(f"formula-keys-{_VERSION}", build)["keys"]


def _formulas(store: Store) -> Iterator[pa.Table]:
    return store.whole().iter_batches(["formula"], batch_size=65_536)


def rows_by_key(keys: Int[np.ndarray, "rows"]) -> dict[int, Int[np.ndarray, "members"]]:
    """Rows of each key, ascending; rows without a formula belong to none."""
    order = np.argsort(keys, kind="stable")
    found, first = np.unique(keys[order], return_index=True)
    return {int(k): rows for k, rows in zip(found, np.split(order, first[1:])) if k != NO_FORMULA}
