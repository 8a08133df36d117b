"""Parcels change nothing but the number of pieces, and clusters of a run look at themselves less."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import dask
import distributed
import numpy as np
import pytest
from distributed.protocol import serialize

from nucleate.evaluation.workers import Workers
from nucleate.screening.housekeeping import SETTINGS, little_housekeeping
from nucleate.screening.parcels import map_in_parcels, parcel


def _sums(arrays: list[np.ndarray]) -> dict[str, Any]:
    return {"sums": [array.sum(keepdims=True) for array in arrays], "worker": dask.config.get(PROFILE)}


PROFILE = "distributed.worker.profile.enabled"


def test_parcels_change_nothing_but_the_number_of_pieces() -> None:
    items = [[np.arange(k, dtype=float), np.ones((k, 3))] * 50 for k in (1, 2, 3, 4, 5)]
    with Workers(1) as here, Workers(2) as two, little_housekeeping(two):
        expected = list(map_in_parcels(here, _sums, items))
        found = list(map_in_parcels(two, _sums, items))
    for one, other in zip(expected, found, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one["sums"], other["sums"], strict=True))
    # Settings of the cluster have reached its workers; this process has its own again.
    assert [result["worker"] for result in found] == [False] * 5
    assert dask.config.get(PROFILE) is True
    # Negative control: each array is a frame of its own without a parcel.
    assert len(serialize(items[1])[1]) == 100
    assert len(serialize(parcel(items[1]))[1]) == 1


class _Counting(Workers):
    """Workers of this process that say how many items came in each message."""

    def __init__(self) -> None:
        super().__init__(2)
        self.messages: list[int] = []

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self.messages.append(len(pickle.loads(item)))
            yield function(item)


def _worked(seconds: float) -> float:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    return seconds


@pytest.mark.parametrize(("seconds", "most"), [(0.0, 16), (0.02, 15), (0.3, 1)])
def test_items_travel_together_as_long_as_a_message_is_little_work(seconds: float, most: int) -> None:
    items = [seconds] * (4 if most == 1 else 50)
    workers = _Counting()
    assert list(map_in_parcels(workers, _worked, iter(items))) == items
    assert sum(workers.messages) == len(items)
    assert workers.messages[0] == 1
    assert max(workers.messages) <= most
    assert (max(workers.messages) > 1) == (most > 1)


def test_a_slow_first_item_does_not_keep_the_others_apart() -> None:
    workers = _Counting()
    items = [0.4, *[0.0] * 100]
    assert list(map_in_parcels(workers, _worked, items)) == items
    assert len(workers.messages) < 20


@pytest.mark.parametrize("workers", [Workers(1), Workers(2, "tcp://cluster:8786")])
def test_a_cluster_of_others_keeps_its_settings(workers: Workers) -> None:
    with little_housekeeping(workers):
        assert dask.config.get(PROFILE) is True


def test_every_setting_is_one_that_dask_knows() -> None:
    assert distributed.__version__  # it brings the defaults
    for name in SETTINGS:
        assert dask.config.get(name) != SETTINGS[name], name
