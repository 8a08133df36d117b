"""What may come next, against every template enumerated: exact, without dead ends."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from template_enumeration import Orbits, atoms_of, generic, multisets, sub_multisets

from nucleate.crystal import Crystal, UnitCell, encode, space_group
from nucleate.errors import ConditionError
from nucleate.physics.charge import is_charge_neutral
from nucleate.physics.elements import is_metal
from nucleate.processes.feasibility import can_complete, position_classes
from nucleate.processes.neutral_compositions import is_neutral
from nucleate.processes.template_constraints import TemplateConstraint, template_constraint
from nucleate.processes.template_lookahead import Lookahead
from nucleate.processes.template_search import counted_completion

GROUPS = [1, 2, 6, 16, 75, 99, 123, 143, 187, 195, 221]


def _accepts(c: TemplateConstraint, number: int, orbits: Orbits) -> bool:
    counts = atoms_of(number, orbits)
    total = sum(counts.values())
    if c.counts is not None and counts != dict(c.counts):
        return False
    if c.neutral and not is_neutral(tuple(sorted(counts.items()))):
        return False
    low, high = c.atom_bounds(number)
    return low <= total <= high and c.required <= counts.keys() <= c.allowed and generic(number, orbits)


def _possible_parts(c: TemplateConstraint, number: int) -> set[Orbits]:
    most = c.atom_bounds(number)[1]
    accepted = (o for o in multisets(number, sorted(c.allowed), most) if _accepts(c, number, o))
    return {part for o in accepted for part in sub_multisets(o)}


CONDITIONS = {
    "composition": {"composition": {8: 2, 22: 1}},
    "one element": {"composition": {8: 3}},
    "two each": {"composition": {8: 1, 22: 2}},
    "chemical system": {"required": [8, 22], "allowed": [8, 22], "max_atoms": 3},
    "one allowed": {"allowed": [8], "max_atoms": 4},
    "exact total": {"allowed": [8, 22], "min_atoms": 3, "max_atoms": 3},
    "any of three": {"allowed": [8, 22, 38], "max_atoms": 2},
    "range": {"required": [8], "allowed": [8, 22, 38], "min_atoms": 2, "max_atoms": 2},
}


@pytest.mark.parametrize("number", GROUPS)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_feasible_parts_are_exactly_those_of_possible_templates(number: int, condition: str) -> None:
    c = template_constraint(space_groups=[number], **CONDITIONS[condition])
    lookahead, possible = Lookahead(c), _possible_parts(c, number)
    assert bool(lookahead.groups()[number - 1]) == bool(possible)
    for orbits in multisets(number, sorted(c.allowed), c.max_atoms):
        assert lookahead.feasible(number, orbits) == (orbits in possible), orbits
        if orbits in possible:
            completion = lookahead.completion(number, orbits)
            assert completion is not None
            assert _accepts(c, number, tuple(sorted((*orbits, *completion))))


@pytest.mark.parametrize("number", [1, 5, 8, 42, 79, 146, 216, 225])
@pytest.mark.parametrize(
    "condition",
    [
        {"allowed": [8], "cell_atoms": (4, 12)},
        {"allowed": [8, 22], "required": [8], "cell_atoms": (3, 6), "neutral": True},
        {"composition": {8: 2}, "cell_atoms": (4, 7)},
    ],
)
def test_room_in_the_conventional_cell_is_shared_by_its_lattice_points(number: int, condition: dict) -> None:
    c = template_constraint(space_groups=[number], **condition)
    points = space_group(number).num_centrings
    low, high = c.atom_bounds(number)
    room = range(condition["cell_atoms"][0], condition["cell_atoms"][1] + 1)
    sizes = [n for n in range(1, 13) if n * points in room and (c.counts is None or n == 2)]
    assert sizes == list(range(low, high + 1))
    lookahead, possible = Lookahead(c), _possible_parts(c, number)
    assert bool(lookahead.groups()[number - 1]) == bool(possible)
    for orbits in multisets(number, sorted(c.allowed), high):
        assert lookahead.feasible(number, orbits) == (orbits in possible), orbits
        assert not orbits or lookahead.may_end(number, orbits) == _accepts(c, number, orbits)


@pytest.mark.parametrize("number", [2, 99, 123, 221])
@pytest.mark.parametrize("condition", ["composition", "exact total", "range", "any of three"])
def test_masks_are_the_next_steps_of_possible_templates(number: int, condition: str) -> None:
    c = template_constraint(space_groups=[number], **CONDITIONS[condition])
    lookahead, possible = Lookahead(c), _possible_parts(c, number)
    for orbits in possible:
        after = {
            (p, z)
            for p in range(len(lookahead.next_orbit(number, orbits).positions))
            for z in c.allowed
            if tuple(sorted((*orbits, (p, z)))) in possible
        }
        masks = lookahead.next_orbit(number, orbits)
        assert set(np.flatnonzero(masks.positions)) == {p for p, _ in after}
        assert masks.end == _accepts(c, number, orbits)
        for p in {p for p, _ in after}:
            allowed = np.flatnonzero(lookahead.elements(number, orbits, p)) + 1
            assert set(allowed.tolist()) == {z for q, z in after if q == p}


def test_counting_alone_would_run_into_templates_of_a_higher_group() -> None:
    """Negative control: P23 has room for CsCl by counting, but every such template is Pm-3m."""
    assert can_complete(195, (1, 1), position_classes(195).fixed_counts)
    lookahead = Lookahead(template_constraint(composition={55: 1, 17: 1}))
    assert not lookahead.groups()[194]
    assert lookahead.groups()[220]


NEUTRAL_CONDITIONS = {
    "three may come": {"allowed": [8, 11, 22], "max_atoms": 4},
    "one must, three may": {"required": [8], "allowed": [3, 8, 9, 22], "max_atoms": 3},
    "chemical system": {"required": [3, 8, 22], "allowed": [3, 8, 22], "max_atoms": 4},
    "exact total": {"allowed": [8, 12], "min_atoms": 4, "max_atoms": 4},
    "metals only": {"allowed": [11, 22, 79], "max_atoms": 3},
    "one element": {"required": [8], "allowed": [8], "max_atoms": 4},
    "one beside a noble gas": {"allowed": [8, 10], "max_atoms": 4},
    "anions only": {"allowed": [8, 9, 17], "max_atoms": 4},
    "two of one state": {"required": [9], "allowed": [3, 9, 11], "min_atoms": 4, "max_atoms": 4},
    "every state by many": {"allowed": [1, 3, 5, 8, 9, 13], "max_atoms": 3},
}


def assert_exact(c: TemplateConstraint, number: int) -> set[Orbits]:
    """Every part of every template asked for is feasible, nothing else is, and completions are as asked."""
    lookahead, possible = Lookahead(c), _possible_parts(c, number)
    assert bool(lookahead.groups()[number - 1]) == bool(possible)
    for orbits in multisets(number, sorted(c.allowed), c.atom_bounds(number)[1]):
        assert lookahead.feasible(number, orbits) == (orbits in possible), orbits
        if orbits in possible:
            completion = lookahead.completion(number, orbits)
            assert completion is not None
            assert _accepts(c, number, tuple(sorted((*orbits, *completion))))
    return possible


@pytest.mark.parametrize("number", [1, 6, 99, 123, 221])
@pytest.mark.parametrize("condition", NEUTRAL_CONDITIONS)
def test_feasible_parts_are_exactly_those_of_neutral_templates(number: int, condition: str) -> None:
    assert_exact(
        template_constraint(space_groups=[number], neutral=True, **NEUTRAL_CONDITIONS[condition]), number
    )


@pytest.mark.parametrize(
    ("number", "condition"),
    [
        (2, {"allowed": [8, 11], "max_atoms": 3}),
        (187, {"required": [8], "allowed": [8, 11, 22], "max_atoms": 3}),
        (216, {"required": [3, 8], "allowed": [3, 8, 14], "max_atoms": 6}),
        (225, {"required": [8], "allowed": [3, 8, 22], "max_atoms": 8}),
        (221, {"required": [8, 12], "allowed": [8, 12, 22], "max_atoms": 6}),
        (195, {"required": [3], "allowed": [3, 8], "max_atoms": 12}),
        (202, {"required": [3, 8], "allowed": [3, 8], "max_atoms": 18}),
    ],
)
def test_feasible_parts_are_exactly_those_of_neutral_templates_with_fixed_positions(
    number: int, condition: dict
) -> None:
    c = template_constraint(space_groups=[number], neutral=True, **condition)
    assert assert_exact(c, number)


def test_neutrality_is_that_of_the_physics_room(rng: np.random.Generator) -> None:
    for _ in range(300):
        elements = rng.choice(np.arange(1, 95), rng.integers(2, 5), replace=False)
        counts = tuple(sorted((int(z), int(rng.integers(1, 7))) for z in elements))
        expected = is_charge_neutral(dict(counts)) or all(is_metal(z) for z, _ in counts)
        assert is_neutral(counts) == expected


@pytest.fixture(scope="module")
def real_crystals(shared_data: Path) -> list[Crystal]:
    """A quarter of the crystals of MP-40, of up to 40 atoms, where no enumeration reaches."""
    import pyarrow.parquet as pq

    columns = ["numbers", "lattice", "frac_coords"]
    return [
        encode(
            UnitCell(
                np.array(row["lattice"]).reshape(3, 3),
                np.array(row["frac_coords"]).reshape(-1, 3),
                np.array(row["numbers"], dtype=np.int64),
            )
        ).crystal
        for row in pq.read_table(shared_data / "mp_40.parquet", columns=columns).to_pylist()[::4]
    ]


def neutral_ones(crystals: list[Crystal]) -> list[Crystal]:
    found = [c for c in crystals if is_neutral(tuple(sorted(c.composition.items())))]
    assert len(found) > 0.8 * len(crystals)
    return found


def can_come_about(crystal: Crystal, *, seed: int, **condition: Any) -> bool:
    """Whether the orbits of a crystal are possible one after the other, in some order, and then the end."""
    number = crystal.space_group_number
    lookahead = Lookahead(template_constraint(space_groups=[number], **condition))
    path = list(zip(crystal.wyckoff_indices.tolist(), crystal.atomic_numbers.tolist()))
    path = [path[k] for k in np.random.default_rng(seed).permutation(len(path))]
    return (
        bool(lookahead.groups()[number - 1])
        and all(
            lookahead.next_orbit(number, tuple(path[:k])).positions[position]
            and lookahead.elements(number, tuple(path[:k]), position)[element - 1]
            for k, (position, element) in enumerate(path)
        )
        and lookahead.next_orbit(number, tuple(path)).end
    )


def total_of(crystal: Crystal) -> dict[str, int]:
    return {"min_atoms": crystal.num_atoms_primitive, "max_atoms": crystal.num_atoms_primitive}


def system_of(crystal: Crystal) -> dict[str, list[int]]:
    return {"required": list(crystal.composition), "allowed": list(crystal.composition)}


def test_every_real_crystal_can_come_about(real_crystals) -> None:
    for seed, crystal in enumerate(real_crystals[::3]):
        assert can_come_about(crystal, seed=seed, composition=crystal.composition)
        assert can_come_about(crystal, seed=seed, **total_of(crystal))
        assert can_come_about(crystal, seed=seed, **system_of(crystal))


def test_every_neutral_real_crystal_can_come_about_among_neutral_ones(real_crystals) -> None:
    for seed, crystal in enumerate(neutral_ones(real_crystals)[::6]):
        assert can_come_about(crystal, seed=seed, neutral=True)
        assert can_come_about(crystal, seed=seed, neutral=True, composition=crystal.composition)
        assert can_come_about(crystal, seed=seed, neutral=True, **total_of(crystal))


def test_every_neutral_real_crystal_can_come_about_where_elements_and_atoms_are_asked_for(
    real_crystals,
) -> None:
    for seed, crystal in enumerate(neutral_ones(real_crystals)[::3]):
        for elements in (system_of(crystal), {"allowed": list(crystal.composition)}):
            assert can_come_about(crystal, seed=seed, neutral=True, **elements, **total_of(crystal))


def test_what_three_more_elements_finish_is_possible() -> None:
    """Cs3NiCl5 from one orbit of chlorine and one of caesium on: nickel and more of both have to come."""
    number, path = 140, ((2, 17), (0, 55), (11, 17), (1, 28), (7, 55))
    asked = {"space_groups": [number], "allowed": [17, 28, 55], "neutral": True}
    lookahead = Lookahead(template_constraint(**asked, min_atoms=18, max_atoms=18))
    assert all(lookahead.feasible(number, path[:k]) for k in range(6))
    completion = lookahead.completion(number, path[:2])
    assert completion is not None
    assert _accepts(lookahead.constraint, number, tuple(sorted((*path[:2], *completion))))
    assert not Lookahead(template_constraint(**asked, min_atoms=17, max_atoms=17)).feasible(number, path[:2])


@pytest.mark.parametrize("number", [202, 207, 209])
@pytest.mark.parametrize("elements", [[3, 8, 15, 26], [9, 19, 21, 37], [7, 8, 11, 16], [3, 8, 12, 13, 14]])
def test_large_groups_hold_neutral_templates_of_many_elements(number: int, elements: list[int]) -> None:
    c = template_constraint(space_groups=[number], required=elements, allowed=elements, neutral=True)
    completion = Lookahead(c).completion(number, ())
    assert completion is not None
    assert _accepts(c, number, tuple(sorted(completion)))
    fixed = [p for p, _ in completion if not position_classes(number).num_free[p]]
    assert len(set(fixed)) == len(fixed)


def neutral_compositions_that_fit(number: int, elements: list[int], most: int) -> Iterator[tuple[int, ...]]:
    """Atoms of every element: all that positions can hold, by trying each number for each element."""
    unused = position_classes(number).fixed_counts
    alone = [n for n in range(1, most + 1) if can_complete(number, (n,), unused)]
    for amounts in itertools.product(alone, repeat=len(elements)):
        fits = sum(amounts) <= most and is_neutral(tuple(sorted(zip(elements, amounts))))
        if fits and can_complete(number, tuple(sorted(amounts)), unused):
            yield tuple(sorted(amounts))


@pytest.mark.parametrize(
    ("number", "elements", "most", "possible"),
    [
        (222, [8, 13, 14], 64, True),
        (222, [9, 19, 37], 64, False),
        (222, [9, 19], 96, True),
        (222, [3, 8, 12, 14], 64, False),
        (222, [3, 8, 15, 26], 64, True),
        (228, [9, 11, 19], 64, True),
        (230, [9, 19, 37], 64, True),
        (209, [3, 8, 15], 28, False),
        (207, [3, 8, 15], 28, False),
    ],
)
def test_a_chemical_system_is_refused_only_where_no_composition_has_a_generic_template(
    number: int, elements: list[int], most: int, possible: bool
) -> None:
    c = template_constraint(
        space_groups=[number], required=elements, allowed=elements, max_atoms=most, neutral=True
    )
    alone: tuple[tuple[int, ...], ...] = ((),) * len(elements)
    found = (
        counted_completion(number, amounts, alone)
        for amounts in neutral_compositions_that_fit(number, elements, most)
    )
    assert any(completion is not None for completion in found) == possible
    assert Lookahead(c).feasible(number, ()) == possible


def test_slots_with_open_elements_reach_the_composition() -> None:
    """Perovskite positions given, elements open: O has to go on the threefold one."""
    c = template_constraint(
        space_groups=[221],
        composition={38: 1, 22: 1, 8: 3},
        orbits=[(0, None), (1, None), (2, None)],
        complete=True,
    )
    lookahead = Lookahead(c)
    assert lookahead.groups()[220]
    assert set(np.flatnonzero(lookahead.elements(221, (), 0)) + 1) == {38, 22}
    placed = ((0, 38), (1, 22))
    assert set(np.flatnonzero(lookahead.elements(221, placed, 2)) + 1) == {8}
    assert not lookahead.next_orbit(221, placed).end
    assert lookahead.next_orbit(221, (*placed, (2, 8))).end


def test_slots_reserve_their_fixed_positions() -> None:
    c = template_constraint(
        space_groups=[221], composition={38: 1, 22: 1, 8: 3}, orbits=[(None, 38), (0, None)]
    )
    masks = Lookahead(c).next_orbit(221, ())
    assert set(np.flatnonzero(masks.positions)) == {1}


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ({"composition": {8: 1}, "excluded": [8]}, "excluded"),
        ({"composition": {8: 1}, "required": [22]}, "not part of the composition"),
        ({"composition": {}}, "at least one element"),
        ({"composition": {11: 2, 17: 1}, "neutral": True}, "charge-neutral"),
        ({"composition": {8: 4}, "max_atoms": 3}, "4 atoms"),
        ({"space_groups": [231]}, "231"),
        ({"space_groups": [1], "crystal_system": "cubic"}, "cubic"),
        ({"crystal_system": "cubical"}, "cubical"),
        ({"min_atoms": 5, "max_atoms": 4}, "empty"),
        ({"orbits": [(0, 8)]}, "exactly one space group"),
        ({"space_groups": [221], "orbits": [(0, 8), (0, 22)]}, "holds one orbit"),
        ({"space_groups": [221], "orbits": [(20, 8)]}, "got 20"),
        ({"space_groups": [221], "complete": True}, "at least one orbit"),
        ({"required": [200]}, "200"),
        ({"allowed": [8], "excluded": [8]}, "Every element"),
    ],
)
def test_contradictions_are_refused_with_the_reason(condition: dict, message: str) -> None:
    with pytest.raises(ConditionError, match=message):
        template_constraint(**condition)
