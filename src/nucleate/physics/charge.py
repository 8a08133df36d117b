"""Charge-neutral oxidation states of a composition: all neutral assignments, the most plausible first.

An assignment gives each element one oxidation state, or two (mixed valence, marked as such). Its log
plausibility is

    sum over elements [ sum_k log p(z, o_k)  -  mixing(o_1 .. o_m) ]  -  POLARITY_COST * (polarity breaks)

with p the share of the state among the element's ICSD reports. Mixing costs MIXED_COST per extra state, and,
for every state passed over between two used ones, -log of the chance that it would have been left out (so
that Fe prefers +2/+3 to +2/+4, while Pb may skip the rare +3). A polarity break is an element that is a
cation although a less electronegative one is an anion, or an element that is both. Elements are
taken in order of electronegativity, so that a partial assignment is summed up by (charge so far, anion
seen): dynamic programming over integer charge gives the best completion of every partial assignment, and a
best-first search guided by it meets the neutral assignments in exact order. Cost grows with atoms in the
formula unit, not with assignments.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nucleate.physics.composition import reduced_counts
from nucleate.physics.elements import (
    element_symbol,
    element_values,
    is_metal,
    oxidation_state_probabilities,
    oxidation_states,
)

MIXED_COST = 1.0
"""Log plausibility an element pays for each oxidation state beyond its first."""

POLARITY_COST = 1.5
"""Log plausibility paid for each cation more electronegative than some anion, or element with both signs."""

Kind = Literal["element", "alloy", "single_valence", "mixed_valence", "unbalanced"]


@dataclass(frozen=True)
class OxidationStates:
    """One neutral assignment per reduced formula unit.

    Attributes:
        states: for each atomic number, ``{oxidation state: atoms in it}``; atoms add up to the reduced
            formula.
        log_plausibility: see the module; 0 is best, comparable between assignments of one composition.
    """

    states: dict[int, dict[int, int]]
    log_plausibility: float

    @property
    def is_mixed(self) -> bool:
        """Whether some element holds more than one oxidation state."""
        return any(len(by_state) > 1 for by_state in self.states.values())

    @property
    def charge(self) -> int:
        """Sum over all atoms; 0."""
        return sum(state * count for by_state in self.states.values() for state, count in by_state.items())

    def mean_states(self) -> dict[int, float]:
        """Average oxidation state of each element."""
        return {
            z: sum(state * count for state, count in by_state.items()) / sum(by_state.values())
            for z, by_state in self.states.items()
        }

    def __str__(self) -> str:
        parts = (
            f"{element_symbol(z)}{count if count > 1 else ''}({state:+d})"
            for z, by_state in self.states.items()
            for state, count in sorted(by_state.items())
        )
        return " ".join(parts)


@dataclass(frozen=True)
class OxidationAssignment:
    """Neutral assignments of a composition, most plausible first, and what kind of substance it is.

    Attributes:
        kind: ``"element"`` (one element, all 0), ``"alloy"`` (metals only, all 0), ``"single_valence"`` or
            ``"mixed_valence"`` (of the most plausible assignment), ``"unbalanced"`` (none is neutral).
        assignments: most plausible first; empty if and only if unbalanced.
    """

    kind: Kind
    assignments: tuple[OxidationStates, ...]

    @property
    def best(self) -> OxidationStates | None:
        """The most plausible assignment, or None when no assignment is neutral."""
        return self.assignments[0] if self.assignments else None


@dataclass(frozen=True, eq=False)
class _Options:
    """All ways to charge the atoms of one element: parallel arrays over options, best score first."""

    charge: np.ndarray
    score: np.ndarray
    has_cation: np.ndarray
    has_anion: np.ndarray
    splits: tuple[dict[int, int], ...]


def assign_oxidation_states(
    composition: object,
    *,
    mixed_valence: bool = True,
    states: Literal["common", "all"] = "all",
    max_assignments: int = 10,
) -> OxidationAssignment:
    """Neutral oxidation-state assignments of a composition, most plausible first.

    Args:
        composition: ``{"Fe": 3, "O": 4}``, a pymatgen ``Composition``, or atomic numbers of all atoms.
        mixed_valence: whether an element may hold two states. A third state is never better than two by more
            than the rounding to whole atoms (at fixed mean charge the best share of states is a linear
            programme with two constraints), so three are only tried when no assignment with two is neutral.
        states: which states may be used, as :func:`nucleate.physics.elements.oxidation_states`.
        max_assignments: how many to return at most; the ranking up to there is exact.
    """
    if max_assignments < 1:
        raise ValueError(f"max_assignments is at least 1, got {max_assignments}.")
    counts = reduced_counts(composition)
    if len(counts) == 1 or all(is_metal(z) for z in counts):
        kind: Kind = "element" if len(counts) == 1 else "alloy"
        return OxidationAssignment(kind, (OxidationStates({z: {0: n} for z, n in counts.items()}, 0.0),))
    found = _ranked(tuple(counts.items()), 2 if mixed_valence else 1, states, max_assignments)
    if not found and mixed_valence and is_charge_neutral(counts, mixed_valence=True, states=states):
        found = _ranked(tuple(counts.items()), 3, states, max_assignments)
    if not found:
        return OxidationAssignment("unbalanced", ())
    return OxidationAssignment("mixed_valence" if found[0].is_mixed else "single_valence", found)


def is_charge_neutral(
    composition: object, *, mixed_valence: bool = False, states: Literal["common", "all"] = "all"
) -> bool:
    """Whether some choice of non-zero oxidation states sums to zero; exact for any number of atoms.

    Sets of reachable charges are bits of one integer, added by shifting. Unlike
    :func:`assign_oxidation_states` this makes no exception for elements and alloys: ``{"Fe": 1}`` is not
    neutral.

    Args:
        composition: as for :func:`assign_oxidation_states`.
        mixed_valence: whether atoms of one element may differ, without limit on the number of states.
        states: which states may be used.
    """
    reachable, offset = 1, 0
    for z, count in reduced_counts(composition).items():
        allowed = _allowed(z, states)
        lowest = min(allowed)
        if mixed_valence:
            bits = _sumset_power(sum(1 << (state - lowest) for state in allowed), count)
        else:
            bits = sum(1 << (count * (state - lowest)) for state in allowed)
        reachable = _sumset(reachable, bits)
        offset += lowest * count
    return offset <= 0 and bool((reachable >> -offset) & 1)


def _sumset(a: int, b: int) -> int:
    """Bits of all sums of a set bit of ``a`` and one of ``b``."""
    if a.bit_count() < b.bit_count():
        a, b = b, a
    result = 0
    while b:
        lowest = b & -b
        result |= a << (lowest.bit_length() - 1)
        b ^= lowest
    return result


def _sumset_power(bits: int, count: int) -> int:
    """Bits of all sums of ``count`` set bits of ``bits``, by repeated doubling."""
    result = 1
    while count:
        if count & 1:
            result = _sumset(result, bits)
        count >>= 1
        if count:
            bits = _sumset(bits, bits)
    return result


def _allowed(z: int, states: Literal["common", "all"]) -> tuple[int, ...]:
    # He, Ne and Ar form no ions: they sit in a crystal as neutral guests.
    return oxidation_states(z, states) or (0,)


def _state_score(chosen: tuple[int, ...], probability: Mapping[int, float]) -> float:
    """Log plausibility of one element holding exactly these states (ascending); see the module."""
    score = sum(math.log(probability[state]) for state in chosen) - MIXED_COST * (len(chosen) - 1)
    for low, high in itertools.pairwise(chosen):
        ends = probability[low] + probability[high]
        skipped = sum(p for state, p in probability.items() if low < state < high)
        score -= math.log1p(skipped / ends)
    if chosen[0] < 0 < chosen[-1]:
        score -= POLARITY_COST
    return score


@functools.lru_cache(maxsize=4096)
def _options(z: int, count: int, max_states: int, states: Literal["common", "all"]) -> _Options:
    probability = oxidation_state_probabilities(z) or {0: 1.0}
    rows: list[tuple[float, dict[int, int]]] = []
    for size in range(1, min(max_states, count) + 1):
        for chosen in itertools.combinations(_allowed(z, states), size):
            score = _state_score(chosen, probability)
            for cuts in itertools.combinations(range(1, count), size - 1):
                edges = (0, *cuts, count)
                split = {state: edges[k + 1] - edges[k] for k, state in enumerate(chosen)}
                rows.append((score, split))
    rows.sort(key=lambda row: -row[0])
    splits = tuple(split for _, split in rows)
    return _Options(
        np.array([sum(state * n for state, n in split.items()) for split in splits], dtype=np.int64),
        np.array([score for score, _ in rows]),
        np.array([max(split) > 0 for split in splits]),
        np.array([min(split) < 0 for split in splits]),
        splits,
    )


@functools.lru_cache(maxsize=4096)
def _ranked(
    counts: tuple[tuple[int, int], ...], max_states: int, states: Literal["common", "all"], limit: int
) -> tuple[OxidationStates, ...]:
    """The ``limit`` most plausible neutral assignments, in exact order."""
    # Least electronegative first: the search peels elements off the end, the table holds the best of what is
    # left.
    order = sorted(counts, key=lambda item: (float(element_values("electronegativity", item[0])), item[0]))
    options = [_options(z, count, max_states, states) for z, count in order]
    low = np.cumsum([0] + [int(o.charge.min()) for o in options])
    high = np.cumsum([0] + [int(o.charge.max()) for o in options])
    # best[k][flag][charge - low[k]]: best score of the first k elements with that charge and "anion seen"
    # flag.
    best = [np.zeros((2, 1))]
    best[0][1, 0] = -np.inf
    for k, option in enumerate(options):
        table = np.full((2, int(high[k + 1] - low[k + 1]) + 1), -np.inf)
        previous = best[k]
        seen: set[tuple[int, bool, bool]] = set()
        for charge, score, cation, anion in zip(
            option.charge, option.score, option.has_cation, option.has_anion
        ):
            key = (int(charge), bool(cation), bool(anion))
            if key in seen:
                continue
            seen.add(key)
            start = int(charge + low[k] - low[k + 1])
            window = slice(start, start + previous.shape[1])
            for flag in (0, 1):
                value = previous[flag] + score - (POLARITY_COST if flag and cation else 0.0)
                target = table[1 if flag or anion else 0, window]
                np.maximum(target, value, out=target)
        best.append(table)

    # Node: (-(score of peeled elements + best of the rest), tie-breaker, elements left, charge they must
    # have, flag after them, score of peeled elements, choices).
    heap: list[tuple[float, int, int, int, int, float, tuple[int, ...]]] = []
    ticket = itertools.count()
    if low[-1] <= 0 <= high[-1]:
        for flag in (0, 1):
            value = best[-1][flag, -low[-1]]
            if np.isfinite(value):
                heapq.heappush(heap, (-float(value), next(ticket), len(options), 0, flag, 0.0, ()))
    found: list[OxidationStates] = []
    while heap and len(found) < limit:
        priority, _, left, charge, flag, score, choices = heapq.heappop(heap)
        if left == 0:
            assigned = {z: options[k].splits[choices[-1 - k]] for k, (z, _) in enumerate(order)}
            states_of = {z: dict(sorted(assigned[z].items())) for z, _ in counts}
            found.append(OxidationStates(states_of, -priority))
            continue
        option, table = options[left - 1], best[left - 1]
        needed = charge - option.charge - int(low[left - 1])
        inside = (needed >= 0) & (needed < table.shape[1])
        for before in (0, 1):
            after = option.has_anion | bool(before)
            fits = inside & (after == bool(flag))
            step = option.score - POLARITY_COST * (option.has_cation & bool(before))
            rest = table[before, np.where(fits, needed, 0)]
            total = score + step + rest
            for row in np.flatnonzero(fits & np.isfinite(total)):
                heapq.heappush(
                    heap,
                    (
                        -float(total[row]),
                        next(ticket),
                        left - 1,
                        int(charge - option.charge[row]),
                        before,
                        score + float(step[row]),
                        (*choices, int(row)),
                    ),
                )
    return tuple(found)
