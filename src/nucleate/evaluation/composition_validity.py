"""Whether a composition can exist: the SMACT rule as published results used it, and a physical classification.

Two questions that the literature mixes up are kept apart:

- ``smact_verdict``: the compositional validity of CDVAE, DiffCSP, FlowMM and their successors, to the letter.
  A tenth of MP-20 fails it, so it is a convention for comparison, not a law.
- ``composition_class``: element, alloy, neutral with one or with several valences per element, or unbalanced,
  by ``nucleate.physics.charge``, which knows mixed valence and every oxidation state reported in the ICSD.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Literal

from nucleate.crystal.species import element_symbol
from nucleate.errors import InvalidStructureError
from nucleate.physics.charge import OxidationAssignment, assign_oxidation_states

MAX_COMBINATIONS = 1e7
"""Combinations of oxidation states above which the published code (DiffCSP, FlowMM) answers "invalid" untried."""

SmactReason = Literal[
    "element",
    "alloy",
    "neutral",
    "no neutral states",
    "electronegativity",
    "too many states",
    "unknown element",
]


@dataclass(frozen=True)
class SmactVerdict:
    """Outcome of the SMACT rule.

    Attributes:
        valid: whether the composition passes.
        reason: what decided. Valid: ``element``, ``alloy``, ``neutral``. Invalid: ``no neutral states`` (no
            combination of listed oxidation states sums to zero), ``electronegativity`` (some do, but each has a
            cation at least as electronegative as an anion), ``too many states``, ``unknown element``.
    """

    valid: bool
    reason: SmactReason


@dataclass(frozen=True)
class _SmactTable:
    states: tuple[tuple[int, ...], ...]
    electronegativity: tuple[float | None, ...]
    metal: tuple[bool, ...]


@functools.cache
def _table() -> _SmactTable:
    path = resources.files("nucleate.evaluation").joinpath("tables", "smact.json")
    table = json.loads(path.read_text(encoding="utf-8"))
    return _SmactTable(
        tuple(tuple(states) for states in table["oxidation_states"]),
        tuple(table["electronegativity"]),
        tuple(table["metal"]),
    )


def smact_verdict(counts: Mapping[int, int]) -> SmactVerdict:
    """Whether a composition passes the SMACT rule of the published evaluations.

    Valid are: one element; metals only (SMACT 2.2.1's list, which holds Ge and Sb, but not Pm); otherwise every
    element gets one oxidation state o_i of SMACT 2.2.1's list so that

        sum_i n_i o_i = 0   and   chi_i < chi_j  for every cation i (o_i > 0) and anion j (o_j < 0)

    with n_i the atoms of the reduced formula and chi the Pauling electronegativity.

    With every chi known, the second condition says that all cations lie below all anions in chi. So it is enough
    to try each cut through the elements in order of chi: positive states below it, negative above it, and the set
    of reachable charges as bits of one integer. That gives the published answer in microseconds instead of
    walking through all combinations. Where a chi is missing (Pm, noble gases, Lr) the published code's answer
    depends on the order of its comparisons; it is followed literally.

    Args:
        counts: atoms of each element, by atomic number; need not be reduced.

    Source: T. Xie et al., Crystal Diffusion Variational Autoencoder, ICLR 2022, appendix; ``smact_validity`` of
        its code and of DiffCSP; D. W. Davies et al., Chem 1 (2016) 617.
    """
    divisor = functools.reduce(_gcd, counts.values(), 0)
    return _smact_verdict(tuple(sorted((z, n // divisor) for z, n in counts.items())))


def _gcd(a: int, b: int) -> int:
    while b:
        a, b = b, a % b
    return a


@functools.lru_cache(maxsize=65536)
def _smact_verdict(composition: tuple[tuple[int, int], ...]) -> SmactVerdict:
    table = _table()
    numbers = [z for z, _ in composition]
    if max(numbers) > len(table.states):
        return SmactVerdict(False, "unknown element")
    if len(numbers) == 1:
        return SmactVerdict(True, "element")
    if all(table.metal[z - 1] for z in numbers):
        return SmactVerdict(True, "alloy")
    states = [table.states[z - 1] for z in numbers]
    amounts = [n for _, n in composition]
    combinations = functools.reduce(lambda a, b: a * b, map(len, states), 1)
    if combinations > MAX_COMBINATIONS:
        return SmactVerdict(False, "too many states")
    if not _reaches_zero(states, amounts):
        return SmactVerdict(False, "no neutral states")
    values = [table.electronegativity[z - 1] for z in numbers]
    known = [x for x in values if x is not None]
    if len(known) < len(values):
        passes = _passes_literally(states, amounts, values)
    else:
        passes = any(
            _reaches_zero([[o for o in s if (o > 0) == (x < cut)] for s, x in zip(states, known)], amounts)
            for cut in sorted(set(known))[1:]
        )
    return SmactVerdict(passes, "neutral" if passes else "electronegativity")


def _reaches_zero(states: Sequence[Sequence[int]], amounts: Sequence[int]) -> bool:
    """Whether one state per element can be chosen so that the charges sum to zero."""
    reachable, offset = 1, 0
    for allowed, amount in zip(states, amounts):
        if not allowed:
            return False
        lowest = min(allowed)
        reachable = functools.reduce(
            lambda bits, state: bits | reachable << (amount * (state - lowest)), allowed, 0
        )
        offset += amount * lowest
    return offset <= 0 and bool(reachable >> -offset & 1)


def _passes_literally(
    states: Sequence[Sequence[int]], amounts: Sequence[int], values: Sequence[float | None]
) -> bool:
    """The published loop: the first pair with a missing value decides, in the order of the elements."""
    for chosen in itertools.product(*states):
        if sum(o * n for o, n in zip(chosen, amounts)) == 0 and _pauling(chosen, values):
            return True
    return False


def _pauling(chosen: Sequence[int], values: Sequence[float | None]) -> bool:
    for (o1, x1), (o2, x2) in itertools.combinations(zip(chosen, values), 2):
        opposite = (o1 > 0 > o2) or (o1 < 0 < o2)
        if x1 is None or x2 is None:
            # Comparing a missing value raises in the published code, and the caller takes that for a pass;
            # of a pair of equal sign it is not compared, and the missing value is a failure.
            return opposite
        if opposite and ((x1 >= x2) if o1 > 0 else (x1 <= x2)):
            return False
    return True


CompositionClass = Literal["element", "alloy", "single_valence", "mixed_valence", "unbalanced", "unknown"]


@dataclass(frozen=True)
class ChargeBalance:
    """What kind of substance a composition is, by ``nucleate.physics.charge``.

    Attributes:
        kind: ``element``, ``alloy`` (metals only), ``single_valence``, ``mixed_valence``, ``unbalanced`` (no
            oxidation states sum to zero), or ``unknown`` (elements beyond Lr).
        states: the most plausible assignment, ``Na(+1) Cl(-1)``; empty where there is none.
        mean_states: mean oxidation state of each element in it, by atomic number.
    """

    kind: CompositionClass
    states: str
    mean_states: Mapping[int, float]

    @property
    def ok(self) -> bool:
        """Whether the composition is an element, an alloy or can be charge-neutral."""
        return self.kind not in ("unbalanced", "unknown")


def charge_balance(counts: Mapping[int, int]) -> ChargeBalance:
    """The class of a composition and its most plausible oxidation states.

    Args:
        counts: atoms of each element, by atomic number; need not be reduced.
    """
    divisor = functools.reduce(_gcd, counts.values(), 0)
    return _charge_balance(tuple(sorted((z, n // divisor) for z, n in counts.items())))


@functools.lru_cache(maxsize=65536)
def _charge_balance(composition: tuple[tuple[int, int], ...]) -> ChargeBalance:
    try:
        assignment: OxidationAssignment = assign_oxidation_states(
            {element_symbol(z): n for z, n in composition}, max_assignments=1
        )
    except InvalidStructureError:
        return ChargeBalance("unknown", "", {})
    if assignment.best is None:
        return ChargeBalance(assignment.kind, "", {})
    return ChargeBalance(assignment.kind, str(assignment.best), assignment.best.mean_states())
