"""The joint process: the partial order, every row of the task table, and elements chosen by a given geometry."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, fields

import numpy as np
import pytest
import torch
from torch import Tensor

from nucleate.crystal import Crystal, CrystalBatch
from nucleate.crystal.tables import group_arrays
from nucleate.errors import ConditionError
from nucleate.processes.choice import ProcessChoice
from nucleate.processes.denoising_error import NOISE_LEVELS
from nucleate.processes.geometry_flow import GeometryFlow
from nucleate.processes.joint_process import (
    NEEDS,
    SHARPNESS,
    GivenParts,
    JointProcess,
    free_numbers,
    given_geometry,
    pick_by_error,
    stages,
)
from nucleate.processes.template_constraints import TemplateConstraint, template_constraint
from nucleate.processes.template_lookahead import Lookahead, NextOrbit, Orbits
from nucleate.processes.template_process import TemplateState
from nucleate.processes.wyckoff_torus import cartesian_from_coords, log_map, without_drift

FLOW = GeometryFlow(torch.tensor([1.6, 0, 0, 0, 0, 0]), torch.tensor([0.2, 0.4, 0.4, 0.2, 0.2, 0.2]))
RUTILE = Crystal(
    136, np.array([1.45, -0.3]), np.array([0, 5]), np.array([22, 8]), np.array([[0, 0, 0], [0.305, 0, 0]])
)


class Even:
    """Every choice is equally likely."""

    def group_logits(self, state: TemplateState) -> Tensor:
        return torch.zeros(len(state.crystals), 230)

    def position_logits(self, state: TemplateState) -> Tensor:
        counts = np.diff(group_arrays()["position_start"])[state.space_group_number.numpy() - 1]
        return torch.zeros(len(state.crystals), 1 + int(counts.max()))

    def element_logits(self, state: TemplateState, positions: Tensor) -> Tensor:
        return torch.zeros(len(state.crystals), 103)


@dataclass
class Guess:
    displacements: Tensor
    lattice_params: Tensor


def still(noisy: CrystalBatch, coord_level: Tensor, lattice_level: Tensor) -> Guess:
    return Guess(torch.zeros(len(noisy.position_ids), 3), noisy.lattice_params)


def joint(denoiser=still) -> JointProcess:
    return JointProcess(ProcessChoice.of_flow(FLOW), lambda constraints: Even(), denoiser)


def generators(count: int) -> list[np.random.Generator]:
    return [np.random.default_rng([7, i]) for i in range(count)]


@pytest.mark.parametrize(
    ("given", "drawn"),
    [
        (set(), [("group",), ("positions", "elements"), ("coords", "lattice")]),
        ({"group"}, [("positions", "elements"), ("coords", "lattice")]),
        ({"group", "positions"}, [("elements",), ("coords", "lattice")]),
        ({"group", "positions", "elements"}, [("coords", "lattice")]),
        ({"group", "positions", "elements", "lattice"}, [("coords",)]),
        ({"group", "positions", "coords", "lattice"}, [("elements",)]),
        (set(NEEDS), []),
    ],
)
def test_fields_come_in_their_order_and_given_ones_stay_clean(given: set, drawn: list) -> None:
    found = stages(frozenset(given))
    assert [s.fields for s in found] == drawn
    known = set(given)
    for stage in found:
        for name in stage.fields:
            assert stage.levels[name] == (1.0, 0.0)
            # what a field needs is known before it, or drawn with it as one object
            assert set(NEEDS[name]) <= known | set(stage.fields)
        for name in known:
            assert stage.levels[name] == (0.0, 0.0)
        for name in set(NEEDS) - known - set(stage.fields):
            assert stage.levels[name] == (1.0, 1.0)
        known |= set(stage.fields)
    assert known == set(NEEDS)


@dataclass
class Record:
    """What a sampling asks for, in order.

    Attributes:
        drawn: "group", "positions" or "elements" for each choice with more than one option, "geometry" for each pass.
        levels: levels of coordinates and lattice that the denoiser is told at each pass.
        templates: groups, positions and elements that it is shown.
    """

    drawn: list[str] = field(default_factory=list)
    levels: list[tuple[float, float]] = field(default_factory=list)
    templates: list[list[int]] = field(default_factory=list)


def recorded(monkeypatch: pytest.MonkeyPatch, constraint: TemplateConstraint, parts: GivenParts) -> Record:
    """The record of one crystal sampled in four passes."""
    record = Record()
    next_orbit, elements = Lookahead.next_orbit, Lookahead.elements

    def orbits(self: Lookahead, number: int, placed: Orbits) -> NextOrbit:
        found = next_orbit(self, number, placed)
        record.drawn += ["positions"] * (int(found.end) + int(found.positions.sum()) > 1)
        return found

    def kinds(self: Lookahead, number: int, placed: Orbits, position: int) -> np.ndarray:
        found = elements(self, number, placed, position)
        record.drawn += ["elements"] * (int(found.sum()) > 1)
        return found

    class Listening(Even):
        def group_logits(self, state: TemplateState) -> Tensor:
            record.drawn.append("group")
            assert not (state.positions >= 0).any()
            return super().group_logits(state)

    def listening(noisy: CrystalBatch, coord_level: Tensor, lattice_level: Tensor) -> Guess:
        record.drawn.append("geometry")
        record.levels.append((float(coord_level), float(lattice_level)))
        record.templates.append(template_of(noisy))
        return still(noisy, coord_level, lattice_level)

    monkeypatch.setattr(Lookahead, "next_orbit", orbits)
    monkeypatch.setattr(Lookahead, "elements", kinds)
    process = JointProcess(ProcessChoice.of_flow(FLOW), lambda constraints: Listening(), listening)
    made = process.sample([constraint], [parts], generators(1), steps=4).crystals
    assert all(template == template_of(made) for template in record.templates)
    return record


def template_of(crystals: CrystalBatch) -> list[int]:
    return torch.cat([crystals.space_group_number, crystals.position_ids, crystals.atomic_numbers]).tolist()


GEOMETRY = {"lattice": RUTILE.lattice_params, "coords": tuple(RUTILE.free_coords)}


@pytest.mark.parametrize(
    "given",
    [
        "",
        "group",
        "elements",
        "group elements",
        "group lattice",
        "group positions",
        "group positions coords",
        "group positions elements",
        "group positions elements lattice",
        "group positions elements coords",
        "group positions coords lattice",
        "group positions elements coords lattice",
    ],
)
def test_sampling_goes_through_the_stages(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn, in which order, and the levels the denoiser is told are those of ``stages``."""
    known = frozenset(given.split())
    orbits = [
        (p if "positions" in known else None, z if "elements" in known else None)
        for p, z in zip((0, 5), (22, 8))
    ]
    constraint = template_constraint(
        space_groups=[136] if "group" in known else None,
        orbits=orbits if known & {"positions", "elements"} else (),
        complete=bool(known & {"positions", "elements"}),
        max_atoms=14,
    )
    parts = GivenParts(
        GEOMETRY["lattice"] if "lattice" in known else None, GEOMETRY["coords"] if "coords" in known else ()
    )
    record = recorded(monkeypatch, constraint, parts)
    left = list(record.drawn)
    for stage in stages(known):
        geometry = not {"coords", "lattice"}.isdisjoint(stage.fields)
        names = {"geometry"} if geometry else set(stage.fields)
        own = list(itertools.takewhile(names.__contains__, left))
        assert set(own) == names
        left = left[len(own) :]
        if geometry:
            for name, told in zip(("coords", "lattice"), zip(*record.levels)):
                begin, end = stage.levels[name]
                np.testing.assert_allclose(told, np.linspace(begin, end, len(told) + 1)[:-1])
    assert not left


def test_what_has_no_place_to_stand_is_refused() -> None:
    for alone, needed in (("coords", "group and positions"), ("lattice", "group"), ("positions", "group")):
        with pytest.raises(ConditionError, match=f"field {alone} can be given only with {needed}$"):
            stages(frozenset({alone}))
    with pytest.raises(ConditionError, match="no field 'spin'"):
        stages(frozenset({"spin"}))
    with pytest.raises(ConditionError, match="Wyckoff positions are given, so exactly one space group"):
        template_constraint(orbits=[(0, None), (5, None)])
    constraint = template_constraint(composition={22: 2, 8: 4})
    with pytest.raises(ConditionError, match="lattice parameters belong to one space group, got 230"):
        joint().sample([constraint], [GivenParts(RUTILE.lattice_params)], generators(1))
    slots = template_constraint(space_groups=[136], orbits=[(None, 22)])
    with pytest.raises(ConditionError, match="an orbit whose Wyckoff position is not"):
        joint().sample([slots], [GivenParts(None, (np.zeros(3),))], generators(1))


def test_proposals_need_to_know_that_no_orbit_comes_beside_a_given_geometry() -> None:
    """Judged by the first template drawn, the others had another number of orbits: a crash, or no say at all."""
    orbits = [(0, None), (5, None)]
    open_end = template_constraint(space_groups=[136], orbits=orbits, max_atoms=14)
    whole = GivenParts(RUTILE.lattice_params, tuple(RUTILE.free_coords))
    with pytest.raises(ConditionError, match=r"Crystal 1: .* but more may come.*complete=True.*proposals=1"):
        joint().sample([open_end] * 2, [GivenParts(), whole], generators(2), steps=1, proposals=2)
    assert len(joint().sample([open_end], [whole], generators(1), steps=1).log_prob) == 1
    # cells, and orbits some of whose coordinates are open, have no say and no harm comes of them
    some = [GivenParts(RUTILE.lattice_params), GivenParts(RUTILE.lattice_params, (np.zeros(3), None))]
    made = joint().sample([open_end] * 2, some, generators(2), steps=1, proposals=2)
    plain = joint().sample([open_end] * 2, some, generators(2), steps=1)
    assert torch.equal(made.crystals.free_coords, plain.crystals.free_coords)


def test_orbits_without_free_coordinates_need_none_to_be_known() -> None:
    """Rutile's titanium has no coordinate that could be open: oxygen's and the cell are the whole geometry."""
    constraint = template_constraint(space_groups=[136], orbits=[(0, None), (5, None)], complete=True)
    calls = []

    def listening(noisy: CrystalBatch, coord_level: Tensor, lattice_level: Tensor) -> Guess:
        calls.append(len(noisy))
        return still(noisy, coord_level, lattice_level)

    parts = GivenParts(RUTILE.lattice_params, (None, RUTILE.free_coords[1]))
    joint(listening).sample([constraint], [parts], generators(1), steps=1, proposals=3)
    assert len(calls) == 3 * len(NOISE_LEVELS)


@pytest.mark.parametrize(
    ("lattice", "coords", "message"),
    [
        ([1.4], None, "Crystal 0: space group 136 has 2 free lattice parameters, got 1"),
        ([1.4, -0.3, 0.1], None, "Crystal 0: space group 136 has 2 free lattice parameters, got 3"),
        (None, ([], [0.3, 0.1]), "Crystal 0, orbit 1: .* 4f of space group 136 has 1 free coordinate, got 2"),
        (None, ([], []), "Crystal 0, orbit 1: .* 4f of space group 136 has 1 free coordinate, got 0"),
        (None, ([0.1], [0.3]), "Crystal 0, orbit 0: .* 2a of space group 136 has 0 free coordinates, got 1"),
        (None, ([0, 0, 0], [0.3, 0.1, 0]), "Crystal 0, orbit 1: .* has 1 free coordinate, got 3: .*0.1"),
    ],
)
def test_given_numbers_are_as_many_as_are_free(lattice, coords, message: str) -> None:
    constraint = template_constraint(space_groups=[136], orbits=[(0, None), (5, None)], complete=True)
    parts = GivenParts(
        None if lattice is None else np.array(lattice), tuple(np.array(c, dtype=float) for c in coords or ())
    )
    with pytest.raises(ConditionError, match=message):
        joint().sample([constraint], [parts], generators(1), steps=1)


def test_coordinates_are_given_alone_or_as_rows_of_a_crystal() -> None:
    constraint = template_constraint(space_groups=[136], orbits=[(0, 22), (5, 8)], complete=True)
    made = [
        joint().sample([constraint], [GivenParts(None, coords)], generators(1), steps=1)
        for coords in (tuple(RUTILE.free_coords), (np.zeros(0), RUTILE.free_coords[1, :1]))
    ]
    assert torch.equal(made[0].crystals.free_coords, made[1].crystals.free_coords)
    np.testing.assert_array_equal(made[0].crystals.free_coords[1], RUTILE.free_coords[1])


def test_every_row_of_the_task_table_keeps_what_is_given() -> None:
    """Nothing, a formula, a group with some orbits and their coordinates, a cell, a whole geometry without elements."""
    tight = {"min_atoms": 2, "max_atoms": 8}
    orbits = list(zip(RUTILE.wyckoff_indices.tolist(), (None, None), strict=True))
    coords = (RUTILE.free_coords[0], RUTILE.free_coords[1])
    asked = [
        (template_constraint(**tight), GivenParts()),
        (template_constraint(composition={22: 2, 8: 4}), GivenParts()),
        (
            template_constraint(space_groups=[136], orbits=[(5, 8)], max_atoms=14),
            GivenParts(None, coords[1:]),
        ),
        (template_constraint(space_groups=[225], **tight), GivenParts(np.array([1.7]))),
        (
            template_constraint(space_groups=[136], orbits=orbits, complete=True),
            GivenParts(RUTILE.lattice_params, coords),
        ),
    ]
    made = joint().sample([c for c, _ in asked], [p for _, p in asked], generators(len(asked)), steps=3)
    crystals = made.crystals.to_crystals()
    assert crystals[1].composition == {22: 2, 8: 4}
    completed = crystals[2]
    assert (completed.wyckoff_indices[0], completed.atomic_numbers[0]) == (5, 8)
    np.testing.assert_array_equal(completed.free_coords[0], RUTILE.free_coords[1])
    np.testing.assert_array_equal(crystals[3].lattice_params, [1.7])
    substituted = crystals[4]
    np.testing.assert_array_equal(substituted.free_coords, RUTILE.free_coords)
    np.testing.assert_array_equal(substituted.lattice_params, RUTILE.lattice_params)
    assert len(substituted.wyckoff_indices) == 2
    alone = (
        joint().sample([asked[2][0]], [asked[2][1]], [generators(3)[2]], steps=3).crystals.to_crystals()[0]
    )
    np.testing.assert_allclose(alone.free_coords, completed.free_coords, atol=1e-6)


def test_what_is_given_stands_where_the_crystals_are() -> None:
    """Values and masks, on a device that is not the CPU: meta holds no numbers, the numbers of orbits stay here."""
    batch = CrystalBatch.from_crystals([RUTILE])
    elsewhere = batch.replace(
        lattice_params=batch.lattice_params.to("meta"), free_coords=batch.free_coords.to("meta")
    )
    given = given_geometry(elsewhere, [GivenParts(RUTILE.lattice_params, tuple(RUTILE.free_coords))])
    tensors = [getattr(given, each.name) for each in fields(given)]
    assert {tensor.device.type for tensor in tensors} == {"meta"}


def test_crystals_go_where_the_denoiser_looks_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, moved = template_constraint(space_groups=[136], orbits=[(0, None), (5, None)], complete=True), []
    original = CrystalBatch.to
    monkeypatch.setattr(CrystalBatch, "to", lambda self, *to: (moved.append(to), original(self, "cpu"))[1])
    process = JointProcess(joint().choice, joint().model, still, torch.device("cuda:1"))
    parts = GivenParts(RUTILE.lattice_params, tuple(RUTILE.free_coords))
    process.sample([asked], [parts], generators(1), steps=1, proposals=2)
    assert moved == [(torch.device("cuda:1"),)] * 4 + [("cpu", torch.float64)]


@pytest.mark.parametrize("given_orbits", [1, 2])
@pytest.mark.parametrize("shift", [0.0, 0.3, 0.61])
def test_given_coordinates_fix_a_floating_origin(shift: float, given_orbits: int) -> None:
    """Zinc of wurtzite given, or zinc and sulphur: a denoiser that knows all but the origin puts the others beside."""
    heights = np.array([0.0, 0.375, 0.8])
    free = np.zeros((3, 3))
    free[:, 0] = heights
    crystal = Crystal(186, np.array([1.7, 0.3]), np.array([1, 1, 0]), np.array([30, 16, 8]), free)
    clean = CrystalBatch.from_crystals([crystal] * 6, dtype=torch.float32)

    def expert(noisy: CrystalBatch, coord_level: Tensor, lattice_level: Tensor) -> Guess:
        lattices = noisy.lattices()
        way = without_drift(noisy, log_map(noisy, clean.free_coords, lattices=lattices))
        vectors = cartesian_from_coords(noisy, way, lattices=lattices)
        return Guess(vectors / noisy.length_unit[noisy.orbit_to_crystal][:, None], noisy.lattice_params)

    orbits = [(1, 30), (1, 16), (0, 8)]
    constraint = template_constraint(space_groups=[186], orbits=orbits, complete=True)
    known = [np.array([height + shift]) if k < given_orbits else None for k, height in enumerate(heights)]
    given = GivenParts(crystal.lattice_params, tuple(known))
    made = joint(expert).sample([constraint] * 6, [given] * 6, generators(6), steps=12)
    found = made.crystals.free_coords[:, 0].reshape(6, 3)
    expected = torch.tensor(heights + shift).expand(6, 3)
    assert torch.equal(found[:, :given_orbits], expected[:, :given_orbits])
    away = (found - expected) % torch.tensor([1.0, 1.0, 0.5])  # 2a has a period of c/2
    away = torch.minimum(away, torch.tensor([1.0, 1.0, 0.5]) - away)
    assert float(away.max()) < 1e-3


def test_the_weight_of_a_geometry_counts_all_its_free_numbers() -> None:
    """Coordinates and lattice parameters: rutile 1 + 2, rock salt 0 + 1, four atoms in P1 12 + 6."""
    salt = Crystal(225, np.array([1.7]), np.array([0, 1]), np.array([11, 17]), np.zeros((2, 3)))
    free = np.random.default_rng(0).random((4, 3))
    triclinic = Crystal(1, np.array([1.7, 0, 0, 0, 0, 0]), np.zeros(4, dtype=int), np.arange(3, 7), free)
    batch = CrystalBatch.from_crystals([RUTILE, salt, triclinic])
    assert free_numbers(batch).tolist() == [3, 1, 18]
    parts = [GivenParts(None, (None, free[0, :1])), GivenParts(np.array([1.7])), GivenParts(None, (free[0],))]
    assert free_numbers(batch, given_geometry(batch, parts)).tolist() == [1, 1, 3]


def test_proposals_are_drawn_by_their_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two elements on rutile's titanium, one with an error of 0.08: it comes exp(-5 * 3 * 0.08) times as often."""
    orbits = [(0, None), (5, 8)]
    constraint = template_constraint(space_groups=[136], orbits=orbits, complete=True, allowed=[22, 14, 8])
    monkeypatch.setattr(
        "nucleate.processes.joint_process.denoising_error",
        lambda process, crystals, denoiser, *, noises: (
            0.08 * (crystals.atomic_numbers[::2] == 14).float()
            + 0.9 * (crystals.atomic_numbers[::2] == 8).float()
        ),
    )
    count, given = 300, GivenParts(RUTILE.lattice_params, tuple(RUTILE.free_coords))
    made = (
        joint()
        .sample([constraint] * count, [given] * count, generators(count), steps=1, proposals=24)
        .crystals
    )
    share = float((made.atomic_numbers[::2] == 14).float().mean())
    rare = np.exp(-SHARPNESS * 3 * 0.08)
    assert share == pytest.approx(rare / (1 + rare), abs=0.06)  # 0.23; one number less would give 0.31


def test_a_proposal_that_has_run_away_is_not_taken() -> None:
    errors = np.array([[np.nan, np.inf, np.nan], [0.1, 0.2, np.nan]])
    assert pick_by_error(errors, np.array([3, 3, 3]), [0.3, 0.9, 0.7]) == [1, 1, 1]
    assert pick_by_error(errors, np.array([3, 3, 3]), [0.3, 0.9, 0.2])[2] == 0


def test_a_given_geometry_has_a_say_in_its_elements() -> None:
    """A denoiser that finds rutile back only with titanium and oxygen on it: proposals are drawn accordingly."""
    clean = CrystalBatch.from_crystals([RUTILE])

    def expert(noisy: CrystalBatch, coord_level: Tensor, lattice_level: Tensor) -> Guess:
        right = (noisy.atomic_numbers.reshape(-1, 2) == torch.tensor([22, 8])).all(dim=1)
        params = noisy.lattice_params.clone()
        params[right, :2] = clean.lattice_params[0, :2].to(params)
        params[~right, :2] += 1.0
        return Guess(torch.zeros(len(noisy.position_ids), 3), params)

    orbits = [(0, None), (5, None)]
    constraint = template_constraint(
        space_groups=[136], orbits=orbits, complete=True, composition={22: 2, 8: 4}
    )
    other = template_constraint(space_groups=[136], orbits=orbits, complete=True, allowed=[22, 8, 14])
    given = GivenParts(RUTILE.lattice_params, (RUTILE.free_coords[0], RUTILE.free_coords[1]))
    count = 30
    shares = {}
    for proposals in (1, 24):
        made = joint(expert).sample(
            [other] * count, [given] * count, generators(count), steps=1, proposals=proposals
        )
        found = [tuple(c.atomic_numbers.tolist()) for c in made.crystals.to_crystals()]
        shares[proposals] = np.mean([z == (22, 8) for z in found])
    assert shares[1] < 0.5  # one of nine by chance
    assert shares[24] > 0.8
    forced = joint(expert).sample([constraint], [given], generators(1), steps=1).crystals.to_crystals()[0]
    assert forced.atomic_numbers.tolist() == [22, 8]
