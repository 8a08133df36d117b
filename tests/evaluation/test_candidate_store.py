"""Candidates come back from disk as they were, in any order, in any process."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from nucleate.data.folder import LocalFolder
from nucleate.errors import NucleateError
from nucleate.evaluation.candidate import Candidate
from nucleate.evaluation.candidate_store import CandidateStore, write_index, write_part


@pytest.fixture
def store(tmp_path: Path, candidates: list[Candidate]) -> CandidateStore:
    folder = LocalFolder(tmp_path)
    parts = [write_part(folder, f"{k}.parquet", candidates[k : k + 6]) for k in (0, 6, 12)]
    write_index(folder, parts)
    return CandidateStore.open(str(tmp_path))


def _assert_same(found: Candidate, expected: Candidate) -> None:
    assert (found.row, found.id, found.file, found.problem) == (
        expected.row,
        expected.id,
        expected.file,
        expected.problem,
    )
    assert dict(found.given) == dict(expected.given)
    assert (found.unit_cell is None) == (expected.unit_cell is None)
    assert (found.encoded is None) == (expected.encoded is None)
    if found.unit_cell is not None and expected.unit_cell is not None:
        np.testing.assert_array_equal(found.unit_cell.lattice, expected.unit_cell.lattice)
        np.testing.assert_array_equal(found.unit_cell.frac_coords, expected.unit_cell.frac_coords)
        np.testing.assert_array_equal(found.unit_cell.atomic_numbers, expected.unit_cell.atomic_numbers)
    if found.encoded is not None and expected.encoded is not None:
        there, here = found.encoded.unit_cell(), expected.encoded.unit_cell()
        np.testing.assert_array_equal(there.frac_coords, here.frac_coords)
        np.testing.assert_array_equal(there.lattice, here.lattice)
        assert found.encoded.crystal.bucket_key == expected.encoded.crystal.bucket_key
        assert found.encoded.crystal.prototype_key == expected.encoded.crystal.prototype_key


def test_candidates_come_back_to_the_last_bit(store: CandidateStore, candidates: list[Candidate]) -> None:
    assert len(store) == len(candidates) == 16
    for found, expected in zip(store, candidates, strict=True):
        _assert_same(found, expected)
    for row in (15, 0, 7, -1):
        _assert_same(store[row], candidates[row])
    assert [c.id for c in store.slice(4, 4)] == ["c4", "c5", "c6", "c7"]
    assert [c.id for c in store.slice(14, 100)] == ["clash", "broken"]
    with pytest.raises(IndexError, match="row 16 is out of range for 16 candidates"):
        store[16]


def test_what_was_refused_says_why(store: CandidateStore) -> None:
    clash, broken = store[14], store[15]
    assert clash.unit_cell is not None
    assert clash.crystal is None
    assert "Å" in clash.problem
    assert broken.unit_cell is None
    assert not broken.is_read
    assert broken.problem == "The file is empty."


def test_columns_and_arrays_follow_the_rows(store: CandidateStore, candidates: list[Candidate]) -> None:
    keys = store.columns(["bucket_key", "density"]).column("bucket_key").to_pylist()
    assert keys == [c.crystal.bucket_key if c.crystal else None for c in candidates]
    rows, groups = [], []
    for part_rows, arrays in store.iter_arrays():
        rows += part_rows.tolist()
        groups += arrays.space_group_number.tolist()
    assert rows == list(range(14))
    assert groups == [c.crystal.space_group_number for c in candidates if c.crystal]


def test_a_store_travels_to_another_process(store: CandidateStore) -> None:
    assert store[3].id == "c3"
    copy = pickle.loads(pickle.dumps(store))
    assert [c.id for c in copy] == [c.id for c in store]
    assert copy.digest == store.digest


def test_the_digest_is_of_what_was_given(tmp_path: Path, candidates: list[Candidate]) -> None:
    folder = LocalFolder(tmp_path)
    whole = write_part(folder, "a.parquet", candidates[:3])
    assert write_part(folder, "b.parquet", candidates[:3]).digest == whole.digest
    moved = candidates[2].unit_cell
    assert moved is not None
    shifted = Candidate(
        2,
        candidates[2].id,
        candidates[2].file,
        type(moved)(moved.lattice, moved.frac_coords + 1e-12, moved.atomic_numbers),
        candidates[2].encoded,
        "",
        candidates[2].given,
    )
    assert write_part(folder, "c.parquet", [*candidates[:2], shifted]).digest != whole.digest


def test_a_folder_without_candidates_is_named(tmp_path: Path) -> None:
    with pytest.raises(NucleateError, match="holds no readable list of candidates"):
        CandidateStore.open(str(tmp_path))
