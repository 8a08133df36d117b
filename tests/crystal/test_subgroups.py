"""Subgroups against International Tables, and every transformation against the operations."""

from __future__ import annotations

import numpy as np
import pytest

from nucleate.crystal import space_group
from nucleate.crystal.subgroups import (
    Subgroup,
    klassengleiche_subgroups,
    translationengleiche_subgroups,
)

# International Tables A1: maximal t-subgroups of index 2 and k-subgroups of index 2, types only, without multiplicity
T_INDEX_2 = {
    221: {215, 207, 200},
    225: {216, 209, 202},
    227: {216, 210, 203},
    194: {190, 187, 186, 182, 176, 164, 163},
    62: {33, 31, 26, 19, 14, 11},
    136: {118, 113, 102, 94, 84, 65, 58},
    152: {144},
    166: {160, 155, 148},
}
K_INDEX_2 = {
    221: {225, 226},
    225: set(),
    229: {221, 222, 223, 224},
    152: {154},
    2: {2},
    47: {47, 49, 51, 65, 67, 69},
}


def assert_is_subgroup(number: int, subgroup: Subgroup) -> None:
    """x = P x_sub + p turns every operation and translation of the subgroup into one of the group."""
    parent, child = space_group(number), space_group(subgroup.space_group_number)
    P, p = subgroup.transformation, subgroup.origin_shift
    to_primitive = np.linalg.inv(parent.primitive_basis)
    translations = {tuple(W.ravel()): t for W, t in zip(parent.rotations, parent.translations)}
    rotations = P @ child.rotations @ np.linalg.inv(P)
    assert np.allclose(rotations, np.rint(rotations), atol=1e-8)
    for W, t in zip(np.rint(rotations).astype(int), child.translations):
        difference = to_primitive @ (P @ t + p - W @ p - translations[tuple(W.ravel())])
        assert np.allclose(difference, np.rint(difference), atol=1e-8)
    lattice = to_primitive @ P @ child.primitive_basis
    assert np.allclose(lattice, np.rint(lattice), atol=1e-8)
    size = round(np.linalg.det(lattice))
    assert size > 0  # handedness is kept
    assert subgroup.index * child.num_operations == size * parent.num_operations
    if subgroup.is_translationengleiche:
        assert size == 1
    else:
        assert child.num_operations == parent.num_operations


@pytest.mark.parametrize("number", range(1, 231))
def test_t_subgroups_are_subgroups(number: int) -> None:
    found = translationengleiche_subgroups(number)
    for subgroup in found:
        assert subgroup.is_translationengleiche
        assert_is_subgroup(number, subgroup)
    numbers = [s.space_group_number for s in found]
    assert numbers[0] == number
    assert found[0].index == 1
    assert 1 in numbers
    assert [s.index for s in found] == sorted(s.index for s in found)


@pytest.mark.parametrize("number", [2, 12, 47, 62, 123, 148, 152, 166, 194, 221, 225, 227, 229])
@pytest.mark.parametrize("index", [2, 3])
def test_k_subgroups_are_subgroups(number: int, index: int) -> None:
    for subgroup in klassengleiche_subgroups(number, index=index):
        assert subgroup.index == index
        assert not subgroup.is_translationengleiche
        assert_is_subgroup(number, subgroup)


def test_a_wrong_transformation_is_noticed() -> None:
    subgroup = next(s for s in translationengleiche_subgroups(225) if s.space_group_number == 139)
    assert_is_subgroup(225, subgroup)
    primitive = subgroup.transformation @ space_group(139).primitive_basis
    wrong = Subgroup(139, primitive, subgroup.origin_shift, subgroup.index, True)
    with pytest.raises((AssertionError, KeyError)):
        assert_is_subgroup(225, wrong)


@pytest.mark.parametrize(("number", "expected"), T_INDEX_2.items())
def test_t_subgroups_of_index_2_are_those_of_international_tables(number: int, expected: set[int]) -> None:
    found = {s.space_group_number for s in translationengleiche_subgroups(number) if s.index == 2}
    assert found == expected


@pytest.mark.parametrize(("number", "expected"), K_INDEX_2.items())
def test_k_subgroups_of_index_2_are_those_of_international_tables(number: int, expected: set[int]) -> None:
    assert {s.space_group_number for s in klassengleiche_subgroups(number, index=2)} == expected


def test_subgroups_of_fm3m_that_lose_the_centring() -> None:
    """International Tables A1: Fm-3m has no k-subgroup of index 2; of index 4 it has Pm-3m and Pn-3m."""
    found = klassengleiche_subgroups(225, index=4)
    assert {s.space_group_number for s in found} == {221, 224}
    for subgroup in found:
        assert_is_subgroup(225, subgroup)
