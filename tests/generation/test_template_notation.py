"""Templates with coordinates: read as written, written as read, and refused where they name no crystal."""

from __future__ import annotations

import numpy as np
import pytest

from nucleate.crystal import Crystal, encode
from nucleate.data.bundled import bundled_crystal
from nucleate.errors import ConditionError
from nucleate.generation.condition import Condition
from nucleate.generation.template_notation import (
    GivenOrbit,
    GivenTemplate,
    check_places,
    parse_template,
    template_text,
)

NAMES = (
    "tio2-rutile",
    "mg2sio4-forsterite",
    "sio2-alpha-quartz-p3-121",
    "bi2te3-bismuth-telluride",
    "al-aluminium",
)


def test_letters_elements_and_coordinates_are_read() -> None:
    assert parse_template("Sr:1a Ti:1b O:3c", 221) == GivenTemplate(
        (GivenOrbit(0, 38, ()), GivenOrbit(1, 22, ()), GivenOrbit(2, 8, ())), complete=True
    )
    assert [orbit.position for orbit in parse_template("a, b,c", 221).orbits] == [0, 1, 2]
    assert parse_template("A", 47) == GivenTemplate((GivenOrbit(26),), complete=True)
    assert parse_template("Ti:2a ...", 136) == GivenTemplate((GivenOrbit(0, 22, ()),), complete=False)
    general = parse_template("k( 0.1 ,-2e-1, 0.25), O:4f(.3) 8j", 136)
    assert [orbit.free_coords for orbit in general.orbits] == [(0.1, -0.2, 0.25), (0.3,), None]
    assert general.has_coords
    assert general.is_open
    assert not general.knows_coords
    assert parse_template("2a 4f(0.3)", 136).knows_coords
    assert parse_template("2a 4f(0.3) ...", 136).knows_coords
    assert not parse_template("2a 4f ...", 136).knows_coords
    assert not parse_template("Ti:2a O:4f(0.3)", 136).is_open


@pytest.mark.parametrize("name", NAMES)
def test_a_crystal_is_written_to_the_last_digit(name: str) -> None:
    crystal = encode(bundled_crystal(name).unit_cell).crystal
    given = parse_template(template_text(crystal), crystal.space_group_number)
    assert given.complete
    assert [orbit.position for orbit in given.orbits] == crystal.wyckoff_indices.tolist()
    assert [orbit.element for orbit in given.orbits] == crystal.atomic_numbers.tolist()
    for orbit, free, count in zip(given.orbits, crystal.free_coords, crystal.num_free, strict=True):
        np.testing.assert_array_equal(orbit.free_coords, free[:count])
    check_places(given, crystal.space_group_number, crystal.lattice)
    check_places(given, crystal.space_group_number, None)
    open_end = parse_template(
        template_text(crystal, coords=False, complete=False), crystal.space_group_number
    )
    assert not open_end.complete
    assert not open_end.has_coords


def test_elements_can_be_left_out() -> None:
    crystal = Crystal(
        136, np.array([1.35, -0.36]), np.array([0, 5]), np.array([22, 8]), np.diag([0, 0.3, 0])[:2, [1, 0, 2]]
    )
    assert template_text(crystal, open_elements={22}) == "2a O:4f(0.3)"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("O:4f(0.305,0.2)", "4f of space group 136 .* has 1 free coordinate, got 'O:4f\\(0.305,0.2\\)'"),
        ("8j(0.3)", "has 2 free coordinates"),
        ("Ti:2a(0.1)", "has 0 free coordinates"),
        ("O:4f(x)", "no numbers; write such as"),
        ("O:4f(nan)", "no numbers"),
        ("O:4f(1e999)", "no numbers"),
        ("O:4f(0.3", "is no orbit"),
        ("Ti:2a ... O:4f", "'...' is no orbit"),
        ("...", "names no orbit"),
        (" ", "names no orbit"),
        ("O:4f(0)", "4f\\(0\\) of space group 136 .* are those of the more special position 2a"),
        ("8j(0.3,0) 2a", "more special position 4f|more special position 8"),
        ("O:4f(0.3) S:4f(-0.7)", "in one place: 4f\\(0.3\\), 4f\\(-0.7\\)"),
        ("O:4f(0.305) O:4f(0.695)", "in one place"),
    ],
)
def test_what_names_no_crystal_is_refused(template: str, message: str) -> None:
    with pytest.raises(ConditionError, match=message):
        Condition(template=template, space_groups=(136,))
