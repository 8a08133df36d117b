"""Conditions: what is impossible is refused with the reason, what is possible is counted right."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Composition
from pymatgen.core.periodic_table import Element

from nucleate.crystal import Crystal, encode, space_group
from nucleate.data.bundled import bundled_crystal
from nucleate.errors import ConditionError
from nucleate.generation.condition import Condition
from nucleate.generation.formula import format_counts, parse_elements, parse_formula
from nucleate.generation.generator import Generator
from nucleate.generation.template_sampling import draw_templates
from nucleate.processes.joint_process import template_batch
from nucleate.processes.template_lookahead import Lookahead

SYMBOLS = ("H", "Li", "O", "F", "Na", "Si", "Cl", "Ti", "Fe", "Sr", "U")


@settings(deadline=None, max_examples=100)
@given(
    st.lists(
        st.tuples(st.sampled_from(SYMBOLS), st.integers(1, 12), st.integers(1, 3), st.booleans()),
        min_size=1,
        max_size=4,
    )
)
def test_formulas_are_read_as_pymatgen_reads_them(parts: list[tuple[str, int, int, bool]]) -> None:
    text = "".join(f"({symbol}{n}O)2" if nested else f"{symbol}{n * k}" for symbol, n, k, nested in parts)
    counts = parse_formula(text)
    amounts = {Element(e).Z: int(n) for e, n in Composition(text).get_el_amt_dict().items()}
    assert counts == {z: n // math.gcd(*amounts.values()) for z, n in amounts.items()}
    assert parse_formula(format_counts(counts)) == counts


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"formula": "Na1.5Cl"}, "not a formula of whole atoms"),
        ({"formula": "NaXx"}, "'Xx' is not a chemical symbol"),
        ({"formula": "Na(Cl"}, "bracket of 'Na\\(Cl' is not closed"),
        ({"formula": "3"}, "counts nothing"),
        ({"formula": ""}, "holds no atoms"),
        ({"formula": "RfO2"}, "Rf .* has no data"),
        ({"formula": "NaCl", "excluded": ("Cl",)}, "Cl is part of NaCl and at the same time excluded"),
        ({"formula": "NaCl", "allowed": ("Na",)}, "NaCl holds Cl, not among the allowed elements"),
        ({"formula": "NaCl", "elements": ("K",)}, "K is required but not part"),
        ({"formula": "NaCl", "chemical_system": "Na-Cl"}, "give one of the two"),
        ({"formula": "NaCl", "num_atoms": (3, 3)}, "No number of NaCl units .* gives 3 to 3 atoms"),
        ({"formula": "NaCl2", "neutral": True}, "no charge-neutral assignment"),
        (
            {"formula": "SrTiO3", "space_groups": (225,), "num_atoms": (5, 5)},
            "it fits with 10, 30, 40, 50, 60",
        ),
        ({"formula": "NaCl", "space_groups": (231,)}, "run from 1 to 230, got 231"),
        ({"crystal_system": "cubic", "space_groups": (1, 2)}, "None of the space groups asked for is cubic"),
        ({"crystal_system": "square"}, "no crystal system 'square'"),
        ({"elements": ("O",), "excluded": ("O",)}, "O is asked for and at the same time excluded"),
        ({"chemical_system": "Li-O", "elements": ("Fe",)}, "Fe is not in Li-O"),
        ({"num_atoms": (5, 3)}, "5 to 3, is empty"),
        ({"num_atoms": (1000, 1000)}, "up to 500 atoms per primitive cell can be asked for, got 1000"),
        ({"formula": "C2000H1999"}, "up to 500 atoms per primitive cell can be asked for, got 3999"),
        ({"template": "a b"}, "of one space group, got 0 groups"),
        ({"template": "a q", "space_groups": (221,)}, "has Wyckoff letters a to n, got 'q'"),
        ({"template": "2a", "space_groups": (221,)}, "is 1a, got '2a'"),
        ({"template": "a a", "space_groups": (221,)}, "holds one orbit, got 2"),
        ({"template": "a?", "space_groups": (221,)}, "'a\\?' is no orbit"),
        ({"template": "Na:a Na:b", "space_groups": (225,)}, "the orbits given without having a higher group"),
        (
            {"lattice": (5, 5, 6, 90, 90, 90), "space_groups": (225,)},
            "is no cubic cell .* as space group 225",
        ),
        (
            {"lattice": (5, 5, 6, 90, 90, 90), "crystal_system": "cubic"},
            "The cell 5, 5, 6, 90, 90, 90 is no cubic cell .*strain 0.12, at most 0.001.*"
            "these lattices: tetragonal, orthorhombic, monoclinic, triclinic; .* another crystal system",
        ),
        (
            {"lattice": (5, 5, 6, 90, 90, 90), "crystal_system": "trigonal"},
            "is no hexagonal or rhombohedral cell .*, as trigonal crystals need it",
        ),
        ({"lattice": (5, 5, 5, 90, 90, 90), "crystal_system": "square"}, "no crystal system 'square'"),
        (
            {"lattice": (5, 5, 6, 90, 90, 90), "space_groups": (1, 2), "crystal_system": "cubic"},
            "None of the space groups asked for is cubic",
        ),
        ({"lattice": (5, 5, 5, 90, 90, 200)}, "must be between 0 and 180"),
        ({"lattice": (50.0,) * 3 + (90.0,) * 3, "formula": "NaCl"}, "no number of units from 1 to 32 fits"),
        (
            {"lattice": (4.0,) * 3 + (90.0,) * 3, "num_atoms": (50, 60)},
            "room for 1 to 21 atoms .*, asked are 50 to 60",
        ),
        (
            {"lattice": (6.0,) * 3 + (90.0,) * 3, "space_groups": (225,), "num_atoms": (19, 64)},
            "primitive cell has 54 Å³, room for 1 to 18 atoms .*, asked are 19 to 64",
        ),
        (
            {"lattice": (20.0,) * 3 + (90.0,) * 3, "space_groups": (1,)},
            "primitive cell has 8000 Å³, room for 100 to 2666 atoms .*, and more than 64 only where num_atoms asks",
        ),
        (
            {"lattice": (2.0,) * 3 + (90.0,) * 3, "space_groups": (225,)},
            "primitive cell has 2 Å³, no room for an atom .* give a larger cell",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(asked: dict[str, Any], message: str) -> None:
    if "lattice" in asked:
        asked = {**asked, "lattice": tuple(float(x) for x in asked["lattice"])}
    with pytest.raises(ConditionError, match=message):
        Condition(**asked)


def test_a_formula_leaves_the_number_of_units_open() -> None:
    sizes = [c.max_atoms for c in Condition(formula="SrTiO3", num_atoms=(1, 16)).constraints]
    assert sizes == [5, 10, 15]
    sizes = [
        c.max_atoms for c in Condition(formula="Sr2Ti2O6", space_groups=(225,), num_atoms=(1, 64)).constraints
    ]
    assert sizes == [10, 30, 40, 50, 60]
    assert [c.max_atoms for c in Condition(formula="Al40O60Si").constraints] == [101]


def test_a_lattice_narrows_groups_and_units() -> None:
    (constraint,) = Condition(
        formula="NaCl", lattice=(5.6, 5.6, 5.6, 90.0, 90.0, 90.0), space_groups=(225,)
    ).constraints
    assert constraint.counts == ((11, 1), (17, 1))
    hexagonal = Condition(lattice=(3.0, 3.0, 5.0, 90.0, 90.0, 120.0))
    groups = set(hexagonal.constraints[0].space_groups)
    assert groups == {1, 2, *range(143, 195)}  # rhombohedral groups are in hexagonal axes
    assert hexagonal.lattice_params(194, num_atoms=4).shape == (2,)
    assert np.allclose(hexagonal.cell @ hexagonal.cell.T, [[9, -4.5, 0], [-4.5, 9, 0], [0, 0, 25]])


def test_a_crystal_system_narrows_the_groups_before_the_units_are_counted() -> None:
    """One unit of SrTiO3 fills only F-centred groups of this cell, none of which is tetragonal; two fill others."""
    condition = Condition(
        formula="SrTiO3", lattice=(5.5, 5.5, 7.8, 90.0, 90.0, 90.0), crystal_system="tetragonal"
    )
    assert 10 in [c.max_atoms for c in condition.constraints]
    assert all(75 <= g <= 142 for c in condition.constraints for g in c.space_groups)
    with pytest.raises(ConditionError, match=r"primitive cell has 118 to 236 Å³"):
        Condition(
            formula="SrTiO3",
            lattice=(5.5, 5.5, 7.8, 90.0, 90.0, 90.0),
            crystal_system="tetragonal",
            num_atoms=(5, 5),
        )


def test_a_lattice_alone_gives_every_group_the_atoms_its_own_primitive_cell_has_room_for() -> None:
    """6 Å cubed: 216 Å³ hold 3 to 72 atoms in a P group, 54 Å³ hold 1 to 18 in an F group."""
    cell = (6.0, 6.0, 6.0, 90.0, 90.0, 90.0)

    def groups(**asked: Any) -> set[int]:
        (constraint,) = Condition(lattice=cell, **asked).constraints
        return set(np.flatnonzero(Lookahead(constraint).groups()) + 1)

    assert groups(space_groups=(221, 225)) == {221, 225}
    assert groups(space_groups=(221, 225), num_atoms=(1, 2)) == {225}
    assert groups(space_groups=(221, 225), num_atoms=(19, 40)) == {221}


def test_a_lattice_with_few_atoms_keeps_every_atom_a_believable_volume(generator: Generator) -> None:
    condition = Condition(lattice=(6.0, 6.0, 6.0, 90.0, 90.0, 90.0), crystal_system="cubic")
    streams = [np.random.default_rng([5, i]) for i in range(60)]
    batch = template_batch(draw_templates(generator.template, condition, streams))
    assert ((216 / batch.num_atoms >= 3) & (216 / batch.num_atoms <= 80)).all()
    centrings = {space_group(g).num_centrings for g in batch.space_group_number.tolist()}
    assert centrings == {1, 2, 4}


def test_a_lattice_that_nearly_fits_becomes_the_nearest_one_that_does() -> None:
    subspace = space_group(221).lattice_subspace
    for lengths, distance in (((4.0, 4.0, 4.0), 0.0), ((4.0, 4.002, 3.999), 2e-3)):
        condition = Condition(lattice=(*lengths, 90.0, 90.0, 90.0), space_groups=(221,))
        cell = subspace.to_lattice(condition.lattice_params(221, num_atoms=5), num_atoms=5)
        assert np.allclose(cell, np.prod(lengths) ** (1 / 3) * np.eye(3), rtol=0, atol=1e-12)
        assert np.abs(cell - condition.cell).max() <= distance + 1e-12


def _rutile(u: float = 0.305) -> Crystal:
    free = np.array([[0.0, 0.0, 0.0], [u, 0.0, 0.0]])
    return Crystal(136, np.array([1.35, -0.36]), np.array([0, 5]), np.array([22, 8]), free)


def test_the_cell_of_a_parent_may_have_an_unusual_volume() -> None:
    """A cell that has no room for a formula by its usual volume has for one whose orbits are given."""
    params = _rutile().lattice_params + np.array([np.log(2) / 3**0.5, 0.0])
    swollen = replace(_rutile(), lattice_params=params)
    condition = Condition.from_parent(swollen, ["Ti"], formula="TiO2")
    with pytest.raises(ConditionError, match="no number of units from"):
        Condition(formula="TiO2", num_atoms=(6, 6), space_groups=(136,), lattice=condition.lattice)
    caesium = Crystal(229, np.array([np.log(115) / 3**0.5]), np.array([0]), np.array([55]), np.zeros((1, 3)))
    assert Condition.from_parent(caesium, ["elements"]).judges_templates
    grown = Condition.from_parent(swollen, ["orbits"], formula="TiO2", num_atoms=(6, 9))
    assert [c.max_atoms for c in grown.constraints] == [6]
    with pytest.raises(ConditionError, match="room for"):
        Condition(num_atoms=(1, 1), space_groups=(229,), lattice=(6.13, 6.13, 6.13, 90.0, 90.0, 90.0))


def test_a_parent_may_be_larger_than_what_is_drawn_by_default() -> None:
    garnet = encode(bundled_crystal("ca3al2si3o12-grossular").unit_cell).crystal
    assert garnet.num_atoms_primitive == 80
    (constraint,) = Condition.from_parent(garnet, ["Ca", "lattice"]).constraints
    assert constraint.max_atoms == 80
    (constraint,) = Condition.from_parent(garnet, ["orbits"]).constraints
    assert constraint.max_atoms == 160


def test_a_parent_gives_all_but_what_is_opened() -> None:
    rutile, cell = _rutile(), pytest.approx((4.585, 4.585, 2.955, 90, 90, 90), abs=0.02)
    exchanged = Condition.from_parent(rutile, ["Ti"])
    assert (exchanged.template, exchanged.space_groups) == ("2a O:4f(0.305)", (136,))
    assert exchanged.lattice == cell
    np.testing.assert_allclose(exchanged.lattice_params(136, num_atoms=6), rutile.lattice_params, atol=1e-12)
    assert exchanged.judges_templates
    grown = Condition.from_parent(rutile, ["orbits", "lattice"], formula="LiTiO2", num_atoms=(8, 8))
    assert (grown.template, grown.lattice) == ("Ti:2a O:4f(0.305) ...", None)
    assert grown.judges_templates
    moved = Condition.from_parent(rutile, ["coords", "lattice"])
    assert moved.template == "Ti:2a O:4f"
    assert not moved.judges_templates  # only one template
    anything = Condition.from_parent(rutile, ["elements", "coords"], excluded=("O",))
    assert anything.template == "2a 4f"
    assert not anything.judges_templates  # a cell alone has no say
    assert not Condition(lattice=exchanged.lattice, formula="TiO2").judges_templates
    salt = Crystal(225, np.array([1.8]), np.array([0, 1]), np.array([11, 17]), np.zeros((2, 3)))
    assert Condition.from_parent(salt, ["orbits"]).judges_templates
    assert Condition.from_parent(salt, ["Na"]).judges_templates
    assert not Condition.from_parent(
        salt, ["Na", "lattice"]
    ).judges_templates  # fixed positions alone neither
    other = Condition.from_parent(rutile, ["Ti", "lattice"], lattice=(4.74, 4.74, 3.19, 90.0, 90.0, 90.0))
    assert other.lattice == (4.74, 4.74, 3.19, 90.0, 90.0, 90.0)
    assert Condition.from_dict(grown.to_dict()) == grown


@pytest.mark.parametrize(
    ("opened", "others", "message"),
    [
        ([], {}, "Everything of the parent O2Ti is given, say what is open: elements, coords"),
        (["Fe"], {}, "'Fe' is no part of the parent O2Ti that can be open"),
        (["lattice"], {"space_groups": (136,)}, "says the space group already"),
        (["lattice"], {"template": "2a 4f"}, "says the template already"),
        (["coords"], {"lattice": (4.6, 4.6, 2.96, 90.0, 90.0, 90.0)}, "says the lattice already"),
        (["coords"], {"crystal_system": "cubic"}, "says the crystal system already"),
        (["orbits"], {"formula": "NaCl"}, "not part"),
        (["elements"], {"formula": "SrTiO3"}, "ask for other orbits or another formula"),
        (["Ti"], {"allowed": ("Ti",)}, "O"),
    ],
)
def test_a_parent_that_cannot_be_is_refused(opened: list[str], others: dict[str, Any], message: str) -> None:
    with pytest.raises(ConditionError, match=message):
        Condition.from_parent(_rutile(), opened, **others)


def test_elements_are_read() -> None:
    assert parse_elements("Li-Fe-O") == parse_elements("Li, Fe O,Li") == ("Li", "Fe", "O")


def test_a_condition_is_written_and_read() -> None:
    condition = Condition(
        elements=("Li",), num_atoms=(2, 8), lattice=(4.0, 4.0, 4.0, 90.0, 90.0, 90.0), neutral=True
    )
    assert condition.to_dict().keys() == {"elements", "num_atoms", "lattice", "neutral"}
    assert Condition.from_dict(condition.to_dict()) == condition
    assert Condition().to_dict() == {}
