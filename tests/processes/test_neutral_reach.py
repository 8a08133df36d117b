"""Charges and atoms in reach, against every way to put orbits on positions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from nucleate.processes import neutral_reach
from nucleate.processes.feasibility import can_complete, position_classes
from nucleate.processes.neutral_compositions import ElementPool, element_states, likely_states
from nucleate.processes.neutral_reach import PartialTemplate, Placed, compositions, in_reach

IRON, LITHIUM, OXYGEN = (likely_states(z) for z in (26, 3, 8))


def _by_trying(t: PartialTemplate) -> Iterator[tuple[int, ...]]:
    """Added atoms of each element, every number of each tried."""
    states = [*(p.states for p in t.placed), *t.missing, *t.fresh]
    present = [*(p.atoms for p in t.placed), *[0] * (len(t.missing) + len(t.fresh))]
    ranges = [
        *(range(t.high + 1 if p.grows else 1) for p in t.placed),
        *(range(1, t.high + 1) for _ in t.missing),
        *(range(t.high + 1) for _ in t.fresh),
    ]
    for added in itertools.product(*ranges):
        if not t.low <= sum(added) <= t.high:
            continue
        atoms = [a + b for a, b in zip(present, added)]
        balanced = any(
            sum(s * n for s, n in zip(chosen, atoms)) == 0 for chosen in itertools.product(*states)
        )
        if balanced and can_complete(t.number, tuple(sorted(n for n in added if n)), t.unused):
            yield added


TEMPLATES = {
    "placed": ((Placed(3, IRON), Placed(4, OXYGEN)), (), ()),
    "one frozen": ((Placed(3, IRON, grows=False), Placed(1, OXYGEN)), (), ()),
    "missing": ((Placed(1, LITHIUM),), (OXYGEN, IRON), ()),
    "fresh": ((Placed(2, LITHIUM),), (IRON,), ((-2,), (-1,), (3,))),
    "fresh of several states": ((), (LITHIUM,), (OXYGEN, (-1,))),
    "cations only": ((Placed(1, LITHIUM),), ((1, 2),), ()),
}


@pytest.mark.parametrize("number", [2, 44, 191, 207, 225])
@pytest.mark.parametrize("which", TEMPLATES)
@pytest.mark.parametrize(("low", "high"), [(0, 6), (7, 7)])
def test_compositions_are_exactly_those_that_balance_and_fit(
    number: int, which: str, low: int, high: int
) -> None:
    placed, missing, fresh = TEMPLATES[which]
    unused = tuple(n - (k == 0) for k, n in enumerate(position_classes(number).fixed_counts))
    t = PartialTemplate(number, unused, placed, missing, fresh, low, high, most=high + 3)
    found, expected = list(compositions(t)), set(_by_trying(t))
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert [sum(atoms) for atoms in found] == sorted(sum(atoms) for atoms in found)
    assert in_reach(t) == bool(expected)


def test_the_cases_are_of_both_kinds() -> None:
    """Negative control of the test above: some have compositions, some have none, and positions rule out some."""
    outcomes, unplaced = set(), 0
    for placed, missing, fresh in TEMPLATES.values():
        t = PartialTemplate(221, position_classes(221).fixed_counts, placed, missing, fresh, 7, 7, most=7)
        outcomes.add(in_reach(t))
        anywhere = PartialTemplate(1, (), placed, missing, fresh, 7, 7, most=7)
        unplaced += len(list(compositions(anywhere))) - len(list(compositions(t)))
    assert outcomes == {True, False}
    assert unplaced > 10


def test_the_answer_does_not_depend_on_what_is_looked_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = [likely_states(z) for z in (25, 7, 16, 14)]
    cases = [
        PartialTemplate(
            221,
            (0, 1),
            tuple(Placed(n, states) for n, states in zip((a, 1, b, 6), mixed)),
            (),
            (),
            low,
            high,
            most=40,
        )
        for a, b in itertools.product((1, 8, 12), (3, 12))
        for low, high in ((0, 0), (1, 1), (2, 4), (6, 6), (5, 30))
    ]
    expected = [in_reach(t) for t in cases]
    assert set(expected) == {True, False}
    for looks, atoms in ((0, 64), (16, 4), (0, 4), (10**6, 64)):
        monkeypatch.setattr(neutral_reach, "FIRST_LOOKS", looks)
        monkeypatch.setattr(neutral_reach, "FIRST_ATOMS", atoms)
        assert [in_reach(t) for t in cases] == expected


def test_fresh_elements_are_distinct_and_of_the_states_they_stand_for() -> None:
    whole = ElementPool(range(1, 104)).without(frozenset({8, 77}))
    assert all(len(states) == 1 for states in whole.states)
    assert (9,) not in whole.states  # iridium alone
    amounts = [k + 1 for k in range(len(whole.states))]
    named = whole.named([n if k % 2 else 0 for k, n in enumerate(amounts)])
    assert named is not None
    assert not {8, 77} & named.keys()
    for z, n in named.items():
        assert whole.states[n - 1][0] in element_states(z)
    few = ElementPool([8, 22]).without(frozenset())
    assert few.states == (likely_states(8), likely_states(22))
    assert few.named([2, 1]) == {8: 2, 22: 1}
    assert few.named([0, 1]) == {22: 1}
