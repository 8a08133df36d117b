"""Counting look-ahead against enumeration of every template."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from template_enumeration import atoms_of, multisets

from nucleate.crystal import space_group
from nucleate.processes.feasibility import (
    can_complete,
    position_classes,
    reachable_totals,
    remaining_key,
    unused_fixed,
)

SMALL_GROUPS = [1, 2, 6, 16, 25, 75, 99, 123, 143, 187, 195, 200, 215, 216, 221, 225, 227, 230]


def _atoms(number: int, index: int) -> int:
    return space_group(number).wyckoff_positions[index].multiplicity_primitive


def _can_hold(number: int, counts: list[int]) -> bool:
    """Whether a group has any template with so many atoms of each element, counting only."""
    return can_complete(number, remaining_key(counts), position_classes(number).fixed_counts)


@settings(max_examples=60, deadline=None)
@given(
    number=st.sampled_from(SMALL_GROUPS),
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=2).filter(lambda c: sum(c) <= 6),
)
def test_whole_templates_equal_enumeration(number: int, counts: list[int]) -> None:
    wanted = dict(zip((8, 22), counts))
    found = any(atoms_of(number, o) == wanted for o in multisets(number, list(wanted), sum(counts)))
    assert _can_hold(number, counts) == found


@settings(max_examples=40, deadline=None)
@given(number=st.sampled_from(SMALL_GROUPS), need=st.integers(1, 5), data=st.data())
def test_partial_templates_equal_enumeration(number: int, need: int, data: st.DataObject) -> None:
    """From any set of used-up positions, what one element can still have."""
    fixed = [p.index for p in space_group(number).wyckoff_positions if p.num_free == 0]
    used = data.draw(st.sets(st.sampled_from(fixed))) if fixed else set()
    reachable = {
        sum(_atoms(number, p) for p, _ in orbits)
        for orbits in multisets(number, [8], need)
        if not used & {p for p, _ in orbits}
    }
    assert can_complete(number, (need,), unused_fixed(number, used)) == (need in reachable)


@settings(max_examples=40, deadline=None)
@given(number=st.sampled_from(SMALL_GROUPS), min_orbits=st.integers(0, 3), most=st.integers(1, 6))
def test_reachable_totals_equal_enumeration(number: int, min_orbits: int, most: int) -> None:
    totals = {
        sum(_atoms(number, p) for p, _ in orbits)
        for orbits in multisets(number, [8], most)
        if len(orbits) >= min_orbits
    }
    bits = reachable_totals(number, position_classes(number).fixed_counts, min_orbits, most)
    assert {n for n in range(most + 1) if bits >> n & 1} == totals


def test_negative_control_without_lookahead_the_greedy_choice_dead_ends() -> None:
    """In Fm-3m three atoms of O next to one of Sr and one of Ti do not fit: Sr on a, Ti on b, O has 2 (c) at most."""
    number = 221
    fixed = position_classes(number)
    greedy_used = {0, 1}  # O on 1a, O on 1b: legal step by step
    left = unused_fixed(number, greedy_used)
    assert _can_hold(number, [1, 1, 3])
    assert not can_complete(number, remaining_key((1, 1, 1)), left)
    assert sum(fixed.fixed_counts) - 2 == sum(left)


@pytest.mark.parametrize(
    ("number", "counts", "units"),
    [
        (221, [1, 1, 3], [1]),  # two 1-fold positions: one perovskite unit, no second
        (225, [1, 1], [1]),
        (227, [1], [2, 4, 6]),
    ],
)
def test_formula_units_of_known_structures(number: int, counts: list[int], units: list[int]) -> None:
    found = [k for k in range(1, 7 // sum(counts) + 1) if _can_hold(number, [n * k for n in counts])]
    assert found[: len(units)] == units


def test_a_group_with_only_large_positions_holds_no_single_atom() -> None:
    assert not _can_hold(230, [1])
    assert not _can_hold(19, [3])
    assert _can_hold(19, [4])
