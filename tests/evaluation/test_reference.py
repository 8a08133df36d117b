"""The held-out part by split or by hash, and what is cached of a reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nucleate.data import Store, build_store
from nucleate.errors import StoreError
from nucleate.evaluation.context import Context
from nucleate.evaluation.reference import Reference


def test_the_test_split_is_held_out(reference_store: Store, tmp_path: Path) -> None:
    reference = Reference.open(reference_store.location, tmp_path)
    assert reference.held_out_rule == "split test of the reference"
    counts = reference_store.manifest.split_counts
    assert len(reference.held_out) == counts["test"] > 0
    assert len(reference.train) == counts["train"]
    assert not set(reference.held_out.rows) & set(reference.train.rows)


def test_a_store_without_splits_holds_out_a_tenth_by_hash(reference_store: Store, tmp_path: Path) -> None:
    cifs = Path(reference_store.location).parent / "cifs"
    build_store(cifs, tmp_path / "store", fractions=(1.0, 0.0, 0.0))
    reference = Reference.open(tmp_path / "store", tmp_path / "cache", seed=0)
    held_out, train = set(reference.held_out.rows), set(reference.train.rows)
    assert held_out | train == set(range(40))
    assert not held_out & train
    assert 1 <= len(held_out) <= 10
    again = Reference.open(tmp_path / "store", tmp_path / "cache", seed=0)
    assert set(again.held_out.rows) == held_out
    assert set(Reference.open(tmp_path / "store", tmp_path / "cache", seed=3).held_out.rows) != held_out


def test_held_out_candidates_are_encoded_like_any_set(reference_store: Store, tmp_path: Path) -> None:
    reference = Reference.open(reference_store.location, tmp_path)
    few = reference.held_out_candidates(3, seed=1)
    assert [c.row for c in few] == [0, 1, 2]
    for candidate in few:
        stored = reference.store.get(candidate.id)
        assert candidate.crystal is not None
        assert candidate.crystal.bucket_key == stored.crystal.bucket_key
    everything = reference.held_out_candidates(10_000, seed=1)
    assert len(everything) == len(reference.held_out)


def test_arrays_of_a_reference_are_built_once_and_again_when_damaged(
    reference_store: Store, tmp_path: Path
) -> None:
    reference = Reference.open(reference_store.location, tmp_path)
    calls = []

    def build() -> dict[str, np.ndarray]:
        calls.append(1)
        return {"density": np.arange(3.0)}

    for _ in range(2):
        np.testing.assert_array_equal(reference.cached("density of train", build)["density"], np.arange(3.0))
    assert len(calls) == 1
    reference.cached("density of test", build)
    assert len(calls) == 2
    for file in reference.cache.glob("*.npz"):
        file.write_bytes(file.read_bytes()[:40])
    reference.cached("density of train", build)
    assert len(calls) == 3


def test_a_context_draws_the_same_numbers_for_the_same_purpose(tmp_path: Path) -> None:
    context = Context(reference=None, seed=4, cache=tmp_path)
    first = context.rng("csp", 3).random(4)
    np.testing.assert_array_equal(first, context.rng("csp", 3).random(4))
    assert not np.array_equal(first, context.rng("csp", 4).random(4))
    assert list(context.map(abs, [-1, 2])) == [1, 2]


def test_a_missing_reference_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="There is no store"):
        Reference.open(tmp_path / "none", tmp_path)
