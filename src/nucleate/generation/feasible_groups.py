"""Which space groups and templates can hold a formula."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from nucleate.crystal.normalizer import normalizer
from nucleate.crystal.space_group import space_group
from nucleate.generation.condition import Condition
from nucleate.generation.formula import format_counts
from nucleate.processes.template_constraints import TemplateConstraint
from nucleate.processes.template_lookahead import Lookahead
from nucleate.processes.template_search import SearchBudget, counted_completions

MAX_NODES = 5_000
"""Partial templates looked at per group and cell while listing."""


@dataclass(frozen=True)
class FeasibleGroup:
    """A group that can hold a formula.

    Attributes:
        space_group_number: 1 to 230.
        symbol: short Hermann-Mauguin symbol.
        crystal_system: one of seven.
        num_atoms: atoms per primitive cell of every feasible cell, ascending.
        templates: of the smallest of them, each as ``Sr:1a Ti:1b O:3c``, equivalent ones once.
        complete: whether these are certainly all templates of that cell; not where the list was cut or the search for
            more ended at its bound.
    """

    space_group_number: int
    symbol: str
    crystal_system: str
    num_atoms: tuple[int, ...]
    templates: tuple[str, ...]
    complete: bool


def feasible_groups(condition: Condition, *, max_templates: int = 20) -> Iterator[FeasibleGroup]:
    """Every group that can hold the condition's formula, with templates of its smallest cell, by number.

    A template counts only if its generic crystal has exactly that group. Templates that differ by a change of
    encoding (the group's normalizer) are one.

    Args:
        condition: with a formula; range of atoms, groups, crystal system and neutrality narrow the list.
        max_templates: most templates listed per group.
    """
    by_group: dict[int, list[TemplateConstraint]] = {}
    for constraint in condition.constraints:
        groups = Lookahead(constraint).groups()
        for number in range(1, len(groups) + 1):
            if groups[number - 1]:
                by_group.setdefault(number, []).append(constraint)
    for number in sorted(by_group):
        group, constraints = space_group(number), by_group[number]
        found, complete = _templates(number, constraints[0], condition.formula_counts or (), max_templates)
        yield FeasibleGroup(
            number,
            group.symbol,
            group.crystal_system,
            tuple(c.max_atoms for c in constraints),
            tuple(found),
            complete,
        )


def _templates(
    number: int, constraint: TemplateConstraint, written: Iterable[int], most: int
) -> tuple[list[str], bool]:
    """(templates, whether these are all), equivalent ones once."""
    order = {z: k for k, z in enumerate(written)}
    counts = sorted(constraint.counts or (), key=lambda pair: order[pair[0]])
    group, permutations = space_group(number), normalizer(number).letter_permutations
    needs = tuple(n for _, n in counts)
    budget = SearchBudget(MAX_NODES)
    completions = counted_completions(number, needs, ((),) * len(needs), budget)
    seen: dict[tuple[tuple[int, ...], ...], str] = {}
    looked_at = 0
    for positions in islice(completions, 50 * most):
        looked_at += 1
        equivalent = [tuple(tuple(sorted(row[list(p)].tolist())) for p in positions) for row in permutations]
        key = min(equivalent)
        if key not in seen:
            if len(seen) == most:
                return list(seen.values()), False
            words = [
                f"{format_counts({z: 1})}:{group.wyckoff_positions[i].label}"
                for (z, _), indices in zip(counts, key)
                for i in indices
            ]
            seen[key] = " ".join(words)
    return list(seen.values()), looked_at < 50 * most and not budget.exceeded
