"""Space groups against moyopy, spglib and the group axioms."""

from __future__ import annotations

import moyopy
import numpy as np
import pytest
import spglib

from nucleate.crystal import space_group
from nucleate.errors import NucleateError, WyckoffError

ALL = range(1, 231)
# International Tables A, table 3.1.2.1 and 2.1.3.1 read by hand
KNOWN = {
    1: ("P1", "triclinic", "triclinic", "1", 1, 1),
    5: ("C2", "monoclinic", "monoclinic", "2", 2, 2),
    62: ("Pnma", "orthorhombic", "orthorhombic", "mmm", 8, 1),
    136: ("P4_2/mnm", "tetragonal", "tetragonal", "4/mmm", 16, 1),
    146: ("R3", "trigonal", "rhombohedral", "3", 3, 3),
    152: ("P3_121", "trigonal", "hexagonal", "32", 6, 1),
    194: ("P6_3/mmc", "hexagonal", "hexagonal", "6/mmm", 24, 1),
    225: ("Fm-3m", "cubic", "cubic", "m-3m", 48, 4),
    229: ("Im-3m", "cubic", "cubic", "m-3m", 48, 2),
}


def operation_set(rotations, translations) -> set[tuple]:
    grid = np.rint(np.asarray(translations) * 24).astype(int) % 24
    return {(*np.ravel(W), *t) for W, t in zip(np.asarray(rotations).astype(int).tolist(), grid.tolist())}


@pytest.mark.parametrize("number", ALL)
def test_operations_equal_those_of_moyopy_and_spglib(number: int) -> None:
    group = space_group(number)
    ours = operation_set(*group.all_operations())
    theirs = moyopy.operations_from_number(number, setting=moyopy.Setting.standard())
    assert ours == operation_set(theirs.rotations, theirs.translations)
    database = spglib.get_symmetry_from_database(group.hall_number)
    assert ours == operation_set(database["rotations"], database["translations"])
    kind = spglib.get_spacegroup_type(group.hall_number)
    assert kind.number == number
    assert kind.international_short == group.symbol
    assert kind.pointgroup_international == group.point_group


@pytest.mark.parametrize("number", ALL)
def test_operations_form_a_group_modulo_the_lattice(number: int) -> None:
    group = space_group(number)
    W, t = group.rotations, group.translations
    assert (W[0] == np.eye(3)).all()
    assert not t[0].any()
    products = np.einsum("aij,bjk->abik", W, W).reshape(-1, 9)
    shifts = (np.einsum("aij,bj->abi", W, t) + t[:, None]).reshape(-1, 3)
    rows = {tuple(x): i for i, x in enumerate(W.reshape(-1, 9).tolist())}
    assert len(rows) == len(W)
    found = np.array([rows[tuple(x)] for x in products.tolist()])
    difference = (shifts - t[found]) @ np.linalg.inv(group.primitive_basis).T
    assert np.allclose(difference, np.rint(difference), atol=1e-12)


@pytest.mark.parametrize("number", ALL)
def test_primitive_basis_generates_the_centrings(number: int) -> None:
    group = space_group(number)
    assert np.isclose(np.linalg.det(group.primitive_basis), 1 / group.num_centrings)
    vectors = np.vstack([group.centring_vectors, np.eye(3)]) @ np.linalg.inv(group.primitive_basis).T
    assert np.allclose(vectors, np.rint(vectors), atol=1e-12)
    assert not group.centring_vectors[0].any()


@pytest.mark.parametrize(("number", "known"), KNOWN.items())
def test_names_and_orders(number: int, known: tuple) -> None:
    g = space_group(number)
    orders = g.num_operations, g.num_centrings
    assert (g.symbol, g.crystal_system, g.lattice_system, g.point_group, *orders) == known


def test_sohncke_groups() -> None:
    assert sum(space_group(n).is_sohncke for n in ALL) == 65


def test_groups_are_cached_and_positions_are_lettered() -> None:
    assert space_group(47) is space_group(47)
    positions = space_group(47).wyckoff_positions
    assert "".join(p.letter for p in positions) == "abcdefghijklmnopqrstuvwxyzA"
    assert [p.index for p in positions] == list(range(27))
    assert space_group(47).wyckoff_position("A").label == "8A"
    assert sum(len(space_group(n).wyckoff_positions) for n in ALL) == 1731


@pytest.mark.parametrize("number", [0, -1, 231])
def test_numbers_that_are_no_group_are_refused(number: int) -> None:
    with pytest.raises(WyckoffError, match=f"run from 1 to 230, got {number}"):
        space_group(number)


@pytest.mark.parametrize("letter", ["m", "A", "", "ab", "1"])
def test_letters_a_group_does_not_have_are_refused(letter: str) -> None:
    with pytest.raises(NucleateError, match=r"space group 225 \(Fm-3m\) has Wyckoff letters a to l, not"):
        space_group(225).wyckoff_position(letter)
