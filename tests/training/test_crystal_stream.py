"""The stream: every crystal once per epoch, within the limits, the same from any cursor, shared between ranks."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
import torch

from nucleate.data import Store
from nucleate.errors import TrainingError
from nucleate.training.crystal_stream import (
    CrystalStream,
    SizeLimits,
    difficulty,
    fitting,
    in_batches,
    load_crystals,
    num_too_large,
    source_names,
)

LIMITS = SizeLimits(crystals=6, edges=600, atoms=40, orbits_each=24, atoms_each=30, radius=1.9)


def _stream(store: Store, **changes) -> CrystalStream:
    return CrystalStream(store.split("train"), **{"tokens": {}, "limits": LIMITS, "seed": 3, **changes})


def _epoch(stream: CrystalStream, count: int) -> list:
    return [b for b in islice(stream, 200) if b.after.epoch == 0][:count]


def test_crystals_come_as_they_are_stored(store: Store) -> None:
    names = source_names(store)
    assert names == ("crystals",)
    pool = load_crystals(store.split("train"), {"crystals": 4})
    assert pool.source.unique().tolist() == [4]
    stored = [r.crystal for r in store.iter_records(split="train")]
    for mine, theirs in zip(pool.crystals.to_crystals(), stored, strict=True):
        assert mine.prototype_key == theirs.prototype_key
        assert torch.allclose(torch.tensor(mine.free_coords), torch.tensor(theirs.free_coords), atol=1e-6)


def test_an_epoch_holds_every_crystal_once_within_the_limits(store: Store) -> None:
    batches = _epoch(_stream(store), 200)
    seen = Counter(row for b in batches for row in b.content.rows.tolist())
    pool = fitting(load_crystals(store.split("train"), {}), LIMITS)
    assert seen == Counter(pool.rows.tolist())
    for b in batches:
        crystals = b.content.crystals
        assert len(crystals) <= LIMITS.crystals
        if len(crystals) > 1:
            assert int(crystals.num_atoms_primitive.sum()) <= LIMITS.atoms
            assert int(LIMITS.edges_of(crystals.num_orbits).sum()) <= LIMITS.edges
    assert len({len(b.content) for b in batches}) > 1


def test_the_order_changes_with_the_epoch_and_not_with_the_process(store: Store) -> None:
    first, again = ([b.content.rows.tolist() for b in islice(_stream(store), 60)] for _ in range(2))
    assert first == again
    assert first != [b.content.rows.tolist() for b in islice(_stream(store, seed=4), 60)]


@pytest.mark.parametrize("window", [1000, 20])
def test_the_stream_goes_on_from_any_cursor(store: Store, window: int) -> None:
    whole = list(islice(_stream(store, window=window), 40))
    for k in (3, 17, 29):
        resumed = _stream(store, window=window)
        resumed.start = whole[k].after
        rest = [b.content.rows.tolist() for b in islice(resumed, 10)]
        assert rest == [b.content.rows.tolist() for b in whole[k + 1 : k + 11]]


def test_ranks_share_an_epoch(store: Store) -> None:
    parts = [_epoch(_stream(store, rank=rank, num_ranks=2), 200) for rank in (0, 1)]
    rows = [row for part in parts for b in part for row in b.content.rows.tolist()]
    assert len(rows) == len(set(rows))
    assert len(rows) >= len(fitting(load_crystals(store.split("train"), {}), LIMITS)) - 1


def test_a_low_ceiling_lets_simple_crystals_through_only(store: Store) -> None:
    pool = fitting(load_crystals(store.split("train"), {}), LIMITS)
    hardness = dict(zip(pool.rows.tolist(), difficulty(pool.crystals).tolist()))
    batches = _epoch(_stream(store, ceiling=lambda: 0.2), 200)
    seen = {row for b in batches for row in b.content.rows.tolist()}
    assert seen == {row for row, share in hardness.items() if share <= 0.2}
    simplest = pool.crystals[int(difficulty(pool.crystals).argmin())]
    assert int(simplest.num_free.sum()) == 0
    assert int(simplest.space_group_number) >= 195


def test_batches_in_order_hold_everything(store: Store) -> None:
    pool = fitting(load_crystals(store, {}), LIMITS)
    batches = in_batches(pool, LIMITS)
    assert torch.equal(torch.cat([b.rows for b in batches]), pool.rows)


def test_crystals_that_are_left_out_are_counted(store: Store) -> None:
    """Also where the store does not fit into one window."""
    training = store.split("train")
    for orbits, atoms in ((24, 30), (2, 30), (24, 4), (1, 1)):
        limits = SizeLimits(crystals=6, edges=600, atoms=40, orbits_each=orbits, atoms_each=atoms, radius=1.9)
        kept = fitting(load_crystals(training, {}), limits)
        assert num_too_large(training, limits) == len(training) - len(kept)
    assert num_too_large(training, limits) > 0


def test_no_crystal_small_enough_is_said(store: Store) -> None:
    none = SizeLimits(crystals=6, edges=600, atoms=40, orbits_each=0, atoms_each=0, radius=1.9)
    with pytest.raises(TrainingError, match="raise max_orbits"):
        next(iter(_stream(store, limits=none)))
