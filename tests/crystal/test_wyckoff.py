"""All 1,731 Wyckoff positions against pyxtal and against brute force on points."""

from __future__ import annotations

import re
from functools import cache

import moyopy
import numpy as np
import pytest
from pyxtal.symmetry import Group

from nucleate.crystal import SpaceGroup, WyckoffPosition, space_group
from nucleate.errors import WyckoffError

ALL = range(1, 231)
STEPS = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)


@cache
def pyxtal_group(number: int) -> Group:
    return Group(number)


def on_lattice(group: SpaceGroup, vectors: np.ndarray) -> np.ndarray:
    """Which vectors (last axis) are translations of the group."""
    reduced = vectors @ np.linalg.inv(group.primitive_basis).T
    return np.abs(reduced - np.rint(reduced)).max(axis=-1) < 1e-9


def same_set_modulo_lattice(group: SpaceGroup, a: np.ndarray, b: np.ndarray) -> bool:
    hits = on_lattice(group, a[:, None] - b)
    return len(a) == len(b) and (hits.sum(axis=0) > 0).all() and (hits.sum(axis=1) > 0).all()


def random_u(position: WyckoffPosition, rng: np.random.Generator) -> np.ndarray:
    return position.period_lattice @ rng.uniform(size=position.num_free)


@pytest.mark.parametrize("number", ALL)
def test_letters_multiplicities_and_orbits_equal_those_of_pyxtal(
    number: int, rng: np.random.Generator
) -> None:
    group = space_group(number)
    theirs = {p.letter: p for p in pyxtal_group(number)}
    assert set(theirs) == set(group.letters)
    for position in group.wyckoff_positions:
        other = theirs[position.letter]
        assert other.multiplicity == position.multiplicity
        assert position.multiplicity == position.multiplicity_primitive * group.num_centrings
        assert len(position.rotations) == position.multiplicity_primitive
        u = random_u(position, rng)
        xyz = np.linalg.pinv(other.ops[0].rotation_matrix) @ (
            position.coords(u) - other.ops[0].translation_vector
        )
        points = np.array([op.operate(xyz) for op in other.ops])
        orbit = position.orbit(u)
        assert orbit.shape == (position.multiplicity, 3)
        assert orbit.min() >= 0
        assert orbit.max() < 1
        difference = orbit[:, None] - points
        same = np.abs(difference - np.rint(difference)).max(axis=-1) < 1e-9
        assert (same.sum(axis=0) == 1).all()
        assert (same.sum(axis=1) == 1).all()


@pytest.mark.parametrize("number", ALL)
def test_stabiliser_is_what_fixes_a_general_point_of_the_position(
    number: int, rng: np.random.Generator
) -> None:
    group = space_group(number)
    for position in group.wyckoff_positions:
        x = position.coords(random_u(position, rng))
        fixed = position.stabiliser_rotations @ x + position.stabiliser_translations
        assert np.abs(fixed - x).max() < 1e-9
        fixing = on_lattice(group, group.rotations @ x + group.translations - x)
        assert fixing.sum() == len(position.stabiliser_rotations)
        assert {tuple(W.ravel()) for W in group.rotations[fixing]} == {
            tuple(W.ravel()) for W in position.stabiliser_rotations
        }
        assert fixing.sum() * position.multiplicity_primitive == group.num_operations
        W, t = position.rotations, position.translations
        assert (group.rotations[position.operation_indices] == W).all()
        assert (t == group.translations[position.operation_indices]).all()
        assert (W[0] == np.eye(3)).all()


@pytest.mark.parametrize("number", ALL)
def test_period_lattice_and_identification_maps_by_brute_force(number: int, rng: np.random.Generator) -> None:
    """Every image of f(u) that lies on f(R^d), over all operations and translations near the cell."""
    group = space_group(number)
    translations = (STEPS[:, None] + group.centring_vectors).reshape(-1, 3)
    for position in group.wyckoff_positions:
        d = position.num_free
        if not d:
            assert position.identification_linear.shape == (1, 0, 0)
            continue
        B, c = position.basis, position.origin
        left = np.linalg.pinv(B)
        inverse_period = np.linalg.inv(position.period_lattice)
        u = random_u(position, rng)
        images = group.rotations @ position.coords(u) + group.translations
        points = (images - np.floor(images))[:, None] + translations
        found = (points - c) @ left.T
        on_position = np.abs(found @ B.T + c - points).max(axis=-1) < 1e-9
        operation, which = np.nonzero(on_position)
        linear = left @ group.rotations @ B
        brute = {
            (*np.rint(linear[g] * 24).astype(int).ravel(), *modulo(v, inverse_period))
            for g, v in zip(operation, found[operation, which] - np.einsum("gij,j->gi", linear[operation], u))
        }
        table = {
            (*np.rint(M * 24).astype(int).ravel(), *modulo(v, inverse_period))
            for M, v in zip(position.identification_linear, position.identification_shift)
        }
        assert len(table) == len(position.identification_linear)
        assert table == brute
        assert (position.identification_linear[0] == np.eye(d)).all()
        assert not position.identification_shift[0].any()
        # the period lattice: translations along f(R^d) are its points, and its basis is among them
        periods = translations @ left.T
        along = np.abs(periods @ B.T - translations).max(axis=-1) < 1e-9
        coefficients = periods[along] @ inverse_period.T
        assert np.allclose(coefficients, np.rint(coefficients), atol=1e-9)
        assert on_lattice(group, (B @ position.period_lattice).T).all()
        assert {tuple(x) for x in np.rint(coefficients).astype(int)} >= {
            tuple(x) for x in np.eye(d, dtype=int)
        }


def modulo(v: np.ndarray, inverse_period: np.ndarray) -> tuple[int, ...]:
    return tuple(np.rint(inverse_period @ v * 48).astype(int) % 48)


def test_how_many_positions_have_finer_periods_and_identifications() -> None:
    positions = [p for n in ALL for p in space_group(n).wyckoff_positions]
    free = [p for p in positions if p.num_free]
    assert len(positions) == 1731
    assert sum(abs(np.linalg.det(p.period_lattice)) < 1 - 1e-9 for p in free) == 126
    assert sum(len(p.identification_linear) > 1 for p in free) == 946


@pytest.mark.parametrize("number", ALL)
def test_functionals_tell_which_points_lie_on_the_position(number: int, rng: np.random.Generator) -> None:
    group = space_group(number)
    for position in group.wyckoff_positions:
        K, R, d = position.functionals, position.section, position.num_free
        assert K.shape == (3 - d, 3)
        assert np.abs(K @ position.basis).max(initial=0) < 1e-12
        on_primitive = K @ group.primitive_basis
        assert np.allclose(on_primitive, np.rint(on_primitive), atol=1e-12)
        assert np.allclose(K @ R, np.eye(3 - d), atol=1e-12)  # with R in T: K maps T onto Z^(3-d)
        assert on_lattice(group, R.T).all()
        if d == 3:
            continue
        translation = group.primitive_basis @ rng.integers(-3, 4, 3)
        x = position.coords(random_u(position, rng)) + translation
        values = K @ (x - position.origin)
        assert np.allclose(values, np.rint(values), atol=1e-9)
        back = x - R @ np.rint(values) - position.origin
        assert np.allclose(
            position.basis @ np.linalg.pinv(position.basis) @ back if d else 0 * back, back, atol=1e-9
        )
        off = K @ (x + rng.uniform(0.1, 0.2, 3) - position.origin)
        assert np.abs(off - np.rint(off)).max() > 1e-6


@pytest.mark.parametrize("number", ALL)
def test_site_symmetry_symbols_equal_those_of_pyxtal_and_name_the_stabiliser(number: int) -> None:
    theirs = {p.letter: p for p in pyxtal_group(number)}
    for position in space_group(number).wyckoff_positions:
        other = theirs[position.letter]
        other.get_site_symmetry()
        assert position.site_symmetry == re.sub(r"\s", "", other.site_symm), position.label
        found = moyopy.PointGroup(position.stabiliser_rotations.tolist()).arithmetic_number
        crystal_class = moyopy.ArithmeticCrystalClass(found).geometric_crystal_class
        # an oriented symbol is the class with its parts in the order of the axes: 2.mm is mm2
        assert sorted(position.site_symmetry.replace(".", "")) == sorted(crystal_class), position.label


@pytest.mark.parametrize(("number", "letter", "expected"), [
    (225, "a", "m-3m"), (225, "e", "4m.m"), (227, "a", "-43m"), (227, "c", ".-3m"), (221, "c", "4/mm.m"),
    (194, "c", "-6m2"), (136, "f", "m.2m"), (62, "c", ".m."), (166, "c", "3m"), (216, "g", "2.mm"),
])  # fmt: skip
def test_site_symmetries_of_international_tables(number: int, letter: str, expected: str) -> None:
    assert space_group(number).wyckoff_position(letter).site_symmetry == expected


def test_a_wrong_number_of_free_coordinates_is_refused() -> None:
    position = space_group(136).wyckoff_position("f")
    with pytest.raises(WyckoffError, match="4f of space group 136 has 1 free coordinate, got 3"):
        position.coords(np.zeros(3))
    with pytest.raises(WyckoffError, match="192l of space group 225 has 3 free coordinates, got 1"):
        space_group(225).wyckoff_position("l").orbit(np.zeros(1))
