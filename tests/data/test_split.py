"""Splits: deterministic, leak-free by their key, and dates in order."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crystal_tables import TableWriter
from hypothesis import given
from hypothesis import strategies as st

from nucleate.data import Store, build_store
from nucleate.data.split import SplitRule, as_day, split_by_time, time_limits
from nucleate.errors import StoreError


def _splits_by(store: Store, key: str) -> dict[Any, set[str]]:
    splits = defaultdict(set)
    for record in store:
        value = record.crystal.formula if key == "formula" else record.crystal.prototype_key
        splits[value].add(record.split)
    return splits


@pytest.mark.parametrize("method", ["formula", "prototype"])
def test_no_formula_or_prototype_is_in_two_splits(
    tmp_path: Path, write_source: TableWriter, method: str
) -> None:
    source = write_source(170, rows_per_task=100)
    build_store(source, tmp_path / "store", split=method, fractions=(0.6, 0.2, 0.2))
    store = Store.open(tmp_path / "store")
    assert set(store.manifest.split_counts) == {"train", "val", "test"}
    assert all(len(splits) == 1 for splits in _splits_by(store, method).values())
    # The check sees a leak where there is one: a random split has many.
    build_store(source, tmp_path / "random", split="random", fractions=(0.6, 0.2, 0.2))
    assert any(len(splits) > 1 for splits in _splits_by(Store.open(tmp_path / "random"), method).values())


@pytest.mark.parametrize("method", ["random", "formula", "prototype"])
def test_a_record_keeps_its_split_whatever_else_is_there(
    tmp_path: Path, write_source: TableWriter, method: str
) -> None:
    build_store(write_source(90), tmp_path / "store", split=method)
    build_store(write_source(30, name="part.parquet"), tmp_path / "part", split=method)
    build_store(write_source(90), tmp_path / "other", split=method, seed=1)
    splits = {record.id: record.split for record in Store.open(tmp_path / "store")}
    assert all(splits[record.id] == record.split for record in Store.open(tmp_path / "part"))
    assert any(splits[record.id] != record.split for record in Store.open(tmp_path / "other"))


def test_shares_are_what_was_asked_for() -> None:
    rule = SplitRule("random", fractions=(0.7, 0.2, 0.1))
    counts = Counter(rule.by_hash(f"mp-{i}") for i in range(20_000))
    assert counts["train"] / 20_000 == pytest.approx(0.7, abs=0.015)
    assert counts["val"] / 20_000 == pytest.approx(0.2, abs=0.015)
    everything = SplitRule("random", fractions=(1.0, 0.0, 0.0))
    assert {everything.by_hash(str(i)) for i in range(1000)} == {"train"}


def test_the_oldest_records_train_and_the_newest_test(tmp_path: Path, write_source: TableWriter) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[10]["year"] = None

    report = build_store(write_source(120, change=change), tmp_path / "s", split="time", split_column="year")
    years = defaultdict(list)
    for record in Store.open(tmp_path / "s"):
        years[record.split].append(record.properties.get("year"))
    assert years["unassigned"] == [None]
    assert max(years["train"]) < min(years["val"])
    assert max(years["val"]) < min(years["test"])
    assert len(years["train"]) == pytest.approx(95, abs=5)
    assert report.manifest.split_counts["unassigned"] == 1
    assert "1 records have no value" in report.remarks()[0]
    with pytest.raises(StoreError, match="found no record with a date or year"):
        build_store(write_source(9), tmp_path / "t", split="time", split_column="name")


def test_a_given_split_is_taken_as_it_is(tmp_path: Path, write_source: TableWriter) -> None:
    build_store(write_source(40), tmp_path / "store", split="given")
    store = Store.open(tmp_path / "store")
    assert store.manifest.split_counts == {"test": 10, "train": 20, "val": 10}
    assert all(record.split == record.properties["split"] for record in store)
    build_store(write_source(40), tmp_path / "other", split="given", split_column="stable")
    assert Store.open(tmp_path / "other").manifest.split_counts == {"False": 20, "True": 20}


@given(st.dates(date(1700, 1, 1), date(2100, 1, 1)), st.integers(1, 2000))
def test_later_dates_are_later_days(first: date, days: int) -> None:
    later = first + timedelta(days)
    assert as_day(first.isoformat()) < as_day(later.isoformat())
    assert as_day(first.isoformat()) == as_day(f"{first.isoformat()}T00:00:00Z")
    assert as_day(str(first.year)) == as_day(first.year) == as_day(f"{first.year}-01-01")
    assert as_day(first.strftime("%Y/%m/%d")) == as_day(first.isoformat())
    assert as_day(first.strftime("%Y-%m")) <= as_day(first.isoformat())


@pytest.mark.parametrize("value", [None, "", "soon", True, math.nan, math.inf, -5, "2020-13-01", 10**6])
def test_what_is_no_date_is_no_day(value: Any) -> None:
    assert math.isnan(as_day(value))
    assert split_by_time(as_day(value), (0.0, 1.0)) == "unassigned"


@given(
    st.lists(st.floats(0, 1000) | st.just(math.nan), min_size=1),
    st.sampled_from([(0.8, 0.1, 0.1), (0.0, 0.5, 0.5), (1.0, 0.0, 0.0), (0.34, 0.33, 0.33)]),
)
def test_no_day_is_in_two_splits(days: list[float], fractions: tuple[float, float, float]) -> None:
    known = [day for day in days if not math.isnan(day)]
    if not known:
        with pytest.raises(StoreError):
            time_limits(np.array(days), fractions)
        return
    limits = time_limits(np.array(days), fractions)
    splits = {
        name: [d for d in known if split_by_time(d, limits) == name] for name in ("train", "val", "test")
    }
    assert sum(map(len, splits.values())) == len(known)
    assert len(splits["train"]) <= math.ceil(fractions[0] * len(known))
    ends = [(min(part), max(part)) for part in splits.values() if part]
    assert all(before[1] < after[0] for before, after in pairwise(ends))
