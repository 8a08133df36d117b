"""Sampling templates: frequencies against the exactly enumerated distribution, streams, given parts."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from template_enumeration import Orbits, atoms_of, generic, multisets, sub_multisets

from nucleate.crystal.tables import group_arrays
from nucleate.errors import ConditionError
from nucleate.processes import template_lookahead, template_search
from nucleate.processes.neutral_compositions import is_neutral
from nucleate.processes.template_constraints import TemplateConstraint, template_constraint
from nucleate.processes.template_lookahead import Lookahead, NextOrbit
from nucleate.processes.template_process import (
    SampledTemplate,
    TemplateState,
    TemplateTemperature,
    crystal_generators,
    impossible_reason,
    sample_templates,
)


class FixedLogits:
    """Known log odds that depend on group, number of orbits and position, not on the batch."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.groups = torch.tensor(rng.normal(size=230))
        self.positions = torch.tensor(rng.normal(size=(231, 8, 28)))
        self.elements = torch.tensor(rng.normal(size=(1731, 103)))

    def group_logits(self, state: TemplateState) -> torch.Tensor:
        return self.groups.expand(len(state.crystals), -1)

    def position_logits(self, state: TemplateState) -> torch.Tensor:
        return self.positions[state.space_group_number, (state.positions >= 0).sum(dim=1).clamp(max=7)]

    def element_logits(self, state: TemplateState, positions: torch.Tensor) -> torch.Tensor:
        return self.elements[positions]


def _softmax(logits: np.ndarray, allowed: list[int]) -> dict[int, float]:
    weights = np.exp(logits[allowed] - logits[allowed].max())
    return dict(zip(allowed, weights / weights.sum()))


def _exact_distribution(
    model: FixedLogits, accepted: dict[int, set[Orbits]], temperature: TemplateTemperature
) -> dict[tuple[int, Orbits], float]:
    """Probability of each template as an ordered list of orbits, by following every path."""
    starts = group_arrays()["position_start"]
    distribution: dict[tuple[int, Orbits], float] = {}
    groups = _softmax(model.groups.numpy() / temperature.group, [g - 1 for g in accepted])
    for number, templates in accepted.items():
        possible = {part for o in templates for part in sub_multisets(o)}

        def follow(orbits: Orbits, probability: float, number: int, templates: set, possible: set) -> None:
            after: dict[int, set[int]] = {}
            for p in range(27):
                for z in range(1, 50):
                    if tuple(sorted((*orbits, (p, z)))) in possible:
                        after.setdefault(p + 1, set()).add(z - 1)
            choices = sorted(after) + ([0] if tuple(sorted(orbits)) in templates else [])
            logits = model.positions[number, min(len(orbits), 7)].numpy() / temperature.positions
            for choice, q in _softmax(logits, sorted(choices)).items():
                if choice == 0:
                    key = (number, orbits)
                    distribution[key] = distribution.get(key, 0.0) + probability * q
                    continue
                row = model.elements[starts[number - 1] + choice - 1].numpy() / temperature.elements
                for z, r in _softmax(row, sorted(after[choice])).items():
                    follow((*orbits, (choice - 1, z + 1)), probability * q * r, number, templates, possible)

        follow((), groups[number - 1], number, templates, possible)
    return distribution


def _orbits(sample: SampledTemplate) -> Orbits:
    return tuple(zip(sample.wyckoff_indices.tolist(), sample.atomic_numbers.tolist()))


@pytest.mark.parametrize("temperature", [1.0, 0.6, TemplateTemperature(1.5, 0.5, 0.8)])
@pytest.mark.parametrize(
    "condition",
    [
        {"space_groups": [99, 123, 195, 221], "composition": {8: 2, 22: 1}},
        {"space_groups": [2, 187], "required": [8], "allowed": [8, 22], "min_atoms": 2, "max_atoms": 2},
        {"space_groups": [5, 99, 107, 225], "allowed": [8, 22], "cell_atoms": (2, 3)},
    ],
)
def test_frequencies_are_those_of_the_enumerated_distribution(
    condition: dict, temperature: TemplateTemperature | float
) -> None:
    c = template_constraint(**condition)
    model, count = FixedLogits(), 4000
    accepted: dict[int, set[Orbits]] = {}
    for number in c.space_groups:
        wanted, (low, high) = dict(c.counts) if c.counts else None, c.atom_bounds(number)
        for orbits in multisets(number, sorted(c.allowed), high):
            counts = atoms_of(number, orbits)
            fits = counts == wanted if wanted else low <= sum(counts.values()) and c.required <= counts.keys()
            if fits and generic(number, orbits):
                accepted.setdefault(number, set()).add(orbits)
    exact = _exact_distribution(model, accepted, TemplateTemperature.of(temperature))
    assert sum(exact.values()) == pytest.approx(1.0)
    samples = sample_templates(model, [c] * count, crystal_generators(7, count), temperature=temperature)
    for sample in samples[:200]:
        assert sample.log_prob == pytest.approx(np.log(exact[sample.space_group_number, _orbits(sample)]))
    seen = Counter((s.space_group_number, _orbits(s)) for s in samples)
    frequent = [key for key, p in exact.items() if p * count >= 8]
    observed = np.array([seen[key] for key in frequent] + [count - sum(seen[key] for key in frequent)])
    expected = np.array([exact[key] * count for key in frequent])
    expected = np.append(expected, count - expected.sum())
    kept = expected > 1
    statistic = ((observed - expected)[kept] ** 2 / expected[kept]).sum()
    assert len(frequent) > 5
    assert chi2.sf(statistic, kept.sum() - 1) > 1e-3


def test_the_same_seed_gives_the_same_templates_in_any_batch() -> None:
    c = template_constraint(max_atoms=12)
    whole = sample_templates(FixedLogits(), [c] * 12, crystal_generators(3, 12))
    parts = [
        s
        for first in range(0, 12, 5)
        for s in sample_templates(
            FixedLogits(), [c] * min(5, 12 - first), crystal_generators(3, min(5, 12 - first), first=first)
        )
    ]
    for a, b in zip(whole, parts):
        assert a.space_group_number == b.space_group_number
        assert _orbits(a) == _orbits(b)
        assert a.log_prob == b.log_prob
    other = sample_templates(FixedLogits(), [c] * 12, crystal_generators(4, 12))
    assert [_orbits(s) for s in other] != [_orbits(s) for s in whole]


def _as_asked(sample: SampledTemplate, c: TemplateConstraint) -> bool:
    orbits = tuple(sorted(_orbits(sample)))
    counts = atoms_of(sample.space_group_number, orbits)
    return (
        sample.space_group_number in c.space_groups
        and (c.counts is None or counts == dict(c.counts))
        and c.required <= counts.keys() <= c.allowed
        and c.min_atoms <= sum(counts.values()) <= c.max_atoms
        and (not c.neutral or is_neutral(tuple(sorted(counts.items()))))
        and generic(sample.space_group_number, orbits)
    )


def test_many_conditions_in_one_batch_are_all_obeyed() -> None:
    asked = [
        template_constraint(composition={38: 1, 22: 1, 8: 3}),
        template_constraint(composition={14: 5}),
        template_constraint(crystal_system="cubic", max_atoms=24),
        template_constraint(required=[3, 26, 8], allowed=[3, 26, 8], max_atoms=14),
        template_constraint(space_groups=range(3, 75), excluded=range(1, 60), min_atoms=7, max_atoms=7),
        template_constraint(space_groups=[227], required=[8], max_atoms=18, neutral=True),
    ]
    constraints = asked * 4
    samples = sample_templates(FixedLogits(), constraints, crystal_generators(0, len(constraints)))
    assert all(_as_asked(s, c) for s, c in zip(samples, constraints))


def test_no_dead_end_where_the_search_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a bound of a few partial templates some choices are given up; what is found still leads to the end."""
    searches = (
        template_search.counted_completion,
        template_search.counted_feasible,
        template_search.open_completion,
        template_search.open_feasible,
    )
    monkeypatch.setattr(template_search, "MAX_NODES", 7)
    for search in searches:
        search.cache_clear()
    constraints = [
        template_constraint(composition={8: 6, 22: 3, 38: 2}),
        template_constraint(allowed=[14], min_atoms=8, max_atoms=8),
        template_constraint(required=[14, 8], allowed=[14, 8], min_atoms=9, max_atoms=9),
    ] * 6
    samples = sample_templates(FixedLogits(), constraints, crystal_generators(0, len(constraints)))
    for search in searches:
        search.cache_clear()
    assert all(_as_asked(s, c) for s, c in zip(samples, constraints))


@pytest.mark.parametrize("bound", [0, 1])
def test_no_dead_end_and_no_charge_where_neutral_compositions_are_given_up(
    monkeypatch: pytest.MonkeyPatch, bound: int
) -> None:
    """With no composition tried, nothing counts as possible but what is sure to be generic."""
    asked = {"required": [9, 11, 12], "allowed": [9, 11, 12], "min_atoms": 5, "max_atoms": 10}
    groups = [1, 2, 187]
    neutral, part = template_constraint(**asked, space_groups=groups, neutral=True), ((0, 9), (0, 11))
    assert Lookahead(neutral).feasible(1, part)
    monkeypatch.setattr(template_lookahead, "MAX_COMPOSITIONS", bound)
    assert Lookahead(neutral).feasible(1, part) == bool(bound)
    samples = sample_templates(FixedLogits(), [neutral] * 12, crystal_generators(0, 12))
    assert all(_as_asked(s, neutral) for s in samples)
    charged = template_constraint(**asked, space_groups=groups)
    others = sample_templates(FixedLogits(), [charged] * 20, crystal_generators(0, 20))
    assert np.mean([_as_asked(s, neutral) for s in others]) < 0.5


def test_a_chemical_system_without_neutral_templates_is_refused_with_the_way_out() -> None:
    """Pn-3n needs its general position of 48 atoms, which leaves 16 for what has to balance it."""
    elements = [3, 8, 12, 14]
    asked = {"space_groups": [222], "required": elements, "allowed": elements}
    charged = template_constraint(**asked)
    assert len(sample_templates(FixedLogits(), [charged], crystal_generators(0, 1))) == 1
    assert "leave neutrality out" not in impossible_reason(charged)
    c = template_constraint(**asked, neutral=True)
    with pytest.raises(
        ConditionError, match=r"No charge-neutral template of space group 222 holds 1 to 64 atoms"
    ):
        sample_templates(FixedLogits(), [c], crystal_generators(0, 1))
    assert impossible_reason(c).endswith("or leave neutrality out.")


def test_a_known_completion_is_followed_where_nothing_else_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last resort alone: masks that rule out every orbit still end in templates as asked."""

    def nothing(self: Lookahead, number: int, orbits: Orbits) -> NextOrbit:
        return NextOrbit(self.may_end(number, orbits), np.zeros(27, dtype=bool))

    monkeypatch.setattr(Lookahead, "next_orbit", nothing)
    monkeypatch.setattr(
        Lookahead, "elements", lambda self, number, orbits, position: np.zeros(103, dtype=bool)
    )
    constraints = [
        template_constraint(space_groups=[221], composition={38: 1, 22: 1, 8: 3}),
        template_constraint(space_groups=[136], required=[22, 8], min_atoms=6, max_atoms=6),
        template_constraint(space_groups=[221], composition={38: 1, 22: 1, 8: 3}, orbits=[(None, 22)]),
    ]
    samples = sample_templates(FixedLogits(), constraints, crystal_generators(0, 3))
    assert all(_as_asked(s, c) for s, c in zip(samples, constraints))


def test_without_lookahead_the_same_model_dead_ends() -> None:
    """Negative control: choices that only respect what is left, step by step, get stuck now and then."""
    rng, stuck = np.random.default_rng(0), 0
    from nucleate.crystal import space_group

    positions = space_group(221).wyckoff_positions
    for _ in range(200):
        left, used = {38: 1, 22: 1, 8: 3}, set()
        while any(left.values()):
            options = [
                (p, z)
                for p in positions
                for z, n in left.items()
                if p.multiplicity_primitive <= n and (p.num_free or p.index not in used)
            ]
            if not options:
                stuck += 1
                break
            p, z = options[rng.integers(len(options))]
            left[z] -= p.multiplicity_primitive
            used.add(p.index)
    assert stuck > 20
    c = template_constraint(space_groups=[221], composition={38: 1, 22: 1, 8: 3})
    assert len(sample_templates(FixedLogits(), [c] * 200, crystal_generators(0, 200))) == 200


def test_given_orbits_come_first_and_cost_nothing() -> None:
    c = template_constraint(
        space_groups=[221], composition={38: 1, 22: 1, 8: 3}, orbits=[(0, 38), (1, 22), (2, 8)], complete=True
    )
    (sample,) = sample_templates(FixedLogits(), [c], crystal_generators(0, 1))
    assert _orbits(sample) == ((0, 38), (1, 22), (2, 8))
    assert sample.log_prob == 0.0


def test_given_positions_with_open_elements_and_the_reverse() -> None:
    positions = template_constraint(
        space_groups=[221], orbits=[(0, None), (1, None), (2, None)], complete=True
    )
    elements = template_constraint(orbits=[(None, 38), (None, 22), (None, 8)], complete=True, max_atoms=10)
    partial = template_constraint(space_groups=[221], composition={38: 1, 22: 1, 8: 3}, orbits=[(None, 22)])
    count = 20
    constraints = [positions] * count + [elements] * count + [partial] * count
    samples = sample_templates(FixedLogits(), constraints, crystal_generators(0, 3 * count))
    assert all(s.wyckoff_indices.tolist() == [0, 1, 2] for s in samples[:count])
    assert len({tuple(s.atomic_numbers) for s in samples[:count]}) > 10
    assert all(s.atomic_numbers.tolist() == [38, 22, 8] for s in samples[count : 2 * count])
    assert len({s.space_group_number for s in samples[count : 2 * count]}) > 5
    assert all(s.atomic_numbers[0] == 22 for s in samples[2 * count :])
    assert all(_as_asked(s, c) for s, c in zip(samples, constraints))


def test_what_no_group_can_hold_is_refused_with_the_reason() -> None:
    c = template_constraint(space_groups=[230], composition={14: 1})
    with pytest.raises(ConditionError, match="space group 230 holds Si1"):
        sample_templates(FixedLogits(), [c], crystal_generators(0, 1))


def test_misuse_is_refused() -> None:
    c = template_constraint(composition={14: 1})
    with pytest.raises(ValueError, match="as many generators"):
        sample_templates(FixedLogits(), [c], [])
    with pytest.raises(ConditionError, match="above 0"):
        sample_templates(FixedLogits(), [c], crystal_generators(0, 1), temperature=0.0)
    with pytest.raises(ConditionError, match="temperature of the elements"):
        TemplateTemperature(elements=float("nan"))
