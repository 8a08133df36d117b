"""Curves of sample efficiency against drawing the samples in thousands of random orders."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from nucleate.evaluation.efficiency import representatives, sample_efficiency


def _table(rng: np.random.Generator) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """Sixty samples of twenty different crystals, two of which were not compared, some of them novel."""
    kinds = rng.integers(0, 20, 60)
    first = {int(kind): row for row, kind in reversed(list(enumerate(kinds)))}
    unique = [first[int(kind)] == row for row, kind in enumerate(kinds)]
    copies = [None if alone else first[int(kind)] for kind, alone in zip(kinds, unique)]
    kinds[[5, 17]] = [100, 101]
    for row in (5, 17):
        unique[row], copies[row] = False, None
    novel = (kinds % 3 == 0) & (kinds < 100)
    valid = rng.random(60) < 0.7
    table = pa.table(
        {
            "unique": unique,
            "duplicate_of": pa.array(copies, type=pa.int64()),
            "novel": novel,
            "structurally_valid": valid,
            "compositionally_valid": [True] * 60,
        }
    )
    return table, kinds, novel


def test_curves_are_the_mean_over_random_orders(rng: np.random.Generator) -> None:
    table, kinds, novel = _table(rng)
    result = sample_efficiency(table, seconds=120.0)
    sizes, curve = result["samples"], result["curves"]["unique_novel"]
    assert (sizes[0], sizes[-1]) == (1, 60)
    totals = np.zeros(len(sizes))
    for _ in range(4000):
        order = rng.permutation(60)
        for k, size in enumerate(sizes):
            drawn = order[:size]
            totals[k] += len({int(kinds[i]) for i in drawn if novel[i]})
    np.testing.assert_allclose(curve, totals / 4000, atol=0.08)
    assert curve[-1] == len({int(k) for k, hit in zip(kinds, novel) if hit})
    assert result["curves"]["valid"][-1] == sum(table.column("structurally_valid").to_pylist())
    assert result["seconds_per_sample"] == 2.0


def test_crystals_that_were_not_compared_stand_for_nobody(rng: np.random.Generator) -> None:
    table, _, _ = _table(rng)
    found = representatives(table)
    assert found[5] is None
    assert found[17] is None
    assert result_is_stable(table)


def result_is_stable(table: pa.Table) -> bool:
    """Whether the curve of different crystals is that of the table in another order."""
    order = np.arange(60)[::-1]
    kinds = representatives(table)
    names = {row: place for place, row in enumerate(order.tolist())}
    seen: dict[int, int] = {}
    unique, copies = [], []
    for row in order.tolist():
        kind = kinds[row]
        if kind is None:
            unique.append(False)
            copies.append(None)
        elif kind in seen:
            unique.append(False)
            copies.append(seen[kind])
        else:
            seen[kind] = names[row]
            unique.append(True)
            copies.append(None)
    turned = pa.table({"unique": unique, "duplicate_of": pa.array(copies, type=pa.int64())})
    ours = sample_efficiency(table.select(["unique", "duplicate_of"]), None)
    theirs = sample_efficiency(turned, None)
    return ours["curves"]["unique"] == pytest.approx(theirs["curves"]["unique"])


def test_a_curve_needs_the_columns_of_its_families() -> None:
    table = pa.table({"structurally_valid": [True, False], "compositionally_valid": [True, True]})
    result = sample_efficiency(table, None)
    assert result["curves"] == {"valid": [0.5, 1.0]}
    assert result["seconds_per_sample"] is None


def test_stable_curves_follow_the_energy_above_the_hull() -> None:
    table = pa.table(
        {
            "unique": [True, True, False, True],
            "duplicate_of": pa.array([None, None, 1, None], type=pa.int64()),
            "novel": [True] * 4,
            "energy_above_hull": pa.array([-0.01, 0.05, 0.05, None]),
        }
    )
    curves = sample_efficiency(table, None)["curves"]
    assert curves["stable_unique_novel"][-1] == 1
    assert curves["metastable_unique_novel"][-1] == 2
    assert curves["unique_novel"][-1] == 3
