"""Sampling weights: what the lines say, how often crystals come, and what is refused."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
import torch

from nucleate.data import Store
from nucleate.errors import ConfigError, TrainingError
from nucleate.training.config import TrainingConfig
from nucleate.training.crystal_stream import CrystalStream, SizeLimits, fitting, load_crystals
from nucleate.training.sampling_weights import SamplingWeights

LIMITS = SizeLimits(crystals=6, edges=600, atoms=40, orbits_each=24, atoms_each=30, radius=1.9)
TOKENS = {"crystals": 1}


def counts(store: Store, lines: list[str], epochs: int) -> dict[int, float]:
    """Times per epoch that each row of the store comes."""
    weights = SamplingWeights.parse(lines) if lines else None
    stream = CrystalStream(store.split("train"), tokens=TOKENS, limits=LIMITS, seed=3, weights=weights)
    seen: Counter[int] = Counter()
    for batch in islice(stream, 10_000):
        if batch.after.epoch == epochs:
            break
        seen.update(batch.content.rows.tolist())
    return {row: number / epochs for row, number in seen.items()}


def test_crystals_come_as_often_as_the_weights_say(store: Store) -> None:
    pool = fitting(load_crystals(store.split("train"), TOKENS), LIMITS)
    free = torch.zeros(len(pool), dtype=torch.int64)
    free.index_add_(0, pool.crystals.orbit_to_crystal, pool.crystals.num_free)
    by_row = dict(zip(pool.rows.tolist(), free.tolist()))
    assert len({min(f, 3) for f in by_row.values()}) > 2
    seen = counts(store, ["crystals=2", "free_coords:0=0", "free_coords:2..=1.25"], 20)
    assert not {row for row, f in by_row.items() if f == 0} & set(seen)
    assert all(seen[row] == 2 for row, f in by_row.items() if f == 1)
    often = [seen[row] for row, f in by_row.items() if f >= 2]
    assert {int(number * 20) / 20 for number in often} - {2.5}  # two or three times, drawn anew in each epoch
    assert abs(sum(often) / len(often) - 2.5) < 0.15
    assert set(counts(store, [], 3).values()) == {1.0}


def test_lines_are_read_and_wrong_ones_refused() -> None:
    weights = SamplingWeights.parse(["mp_20 = 2", "a=b=0.5", "free_coords:3=1", "free_coords:4..8=2"])
    assert weights.by_source == {"mp_20": 2.0, "a=b": 0.5}
    assert weights.by_free_coords == ((3, 3, 1.0), (4, 8, 2.0))
    for line in (
        "mp_20",
        "=2",
        "mp_20=much",
        "mp_20=-1",
        "mp_20=nan",
        "free_coords:x=2",
        "free_coords:3-8=2",
    ):
        with pytest.raises(ConfigError, match="cannot be read; expected lines such as mp_20=2"):
            TrainingConfig.from_flat({"minutes": 1, "sampling_weights": [line]})
    with pytest.raises(
        ConfigError, match=r"data source .mp20., which is unknown; the nearest known one is .mp_20."
    ):
        SamplingWeights.parse(["mp20=2"]).check_sources(["mp_20", "wbm"])


def test_weights_that_leave_nothing_are_said(store: Store) -> None:
    with pytest.raises(TrainingError, match="leave no crystal"):
        counts(store, ["crystals=0"], 1)


def test_a_curriculum_begins_with_the_simplest_crystals_that_come(store: Store) -> None:
    """Weights of 0 for all the simplest crystals once left nothing below the ceiling, for ever."""
    ceilings = iter([0.1] * 1000)
    stream = CrystalStream(
        store.split("train"),
        tokens=TOKENS,
        limits=LIMITS,
        seed=3,
        weights=SamplingWeights.parse(["free_coords:0..2=0"]),
        ceiling=lambda: next(ceilings),  # asked more often than that, it is the loop without end
    )
    batches = list(islice(stream, 3))
    assert all(len(batch) for batch in batches)
    free = batches[0].content.crystals
    assert int(free.num_free.sum()) >= 3
