"""Affine normalizers against brute force on operations and points, moyopy, and International Tables."""

from __future__ import annotations

from dataclasses import replace

import moyopy
import numpy as np
import pytest
from synthetic import generic_crystal

from nucleate.crystal import Crystal, Normalizer, SpaceGroup, space_group
from nucleate.crystal.normalizer import EncodingMaps

ALL = range(1, 231)
ENANTIOMORPHS = [
    (76, 78), (91, 95), (92, 96), (144, 145), (151, 153), (152, 154),
    (169, 170), (171, 172), (178, 179), (180, 181), (212, 213),
]  # fmt: skip
POLAR_CLASSES = {"1": 3, "m": 2} | dict.fromkeys(["2", "mm2", "4", "4mm", "3", "3m", "6", "6mm"], 1)

# Index of the group in its chirality-preserving affine normalizer, from International Tables A (2016), tables
# 3.5.2.3 to 3.5.2.5: Euclidean normalizer of the metric of highest symmetry, without its improper operations.
INDEX = {
    19: 48, 47: 48, 62: 8, 63: 4, 123: 4, 136: 4, 139: 2, 141: 2, 148: 4, 166: 2, 167: 2, 194: 2, 198: 4,
    205: 2, 216: 8, 221: 2, 225: 2, 227: 2, 229: 1, 230: 1,
}  # fmt: skip


def conjugation_misfit(group: SpaceGroup, target: SpaceGroup, L: np.ndarray, s: np.ndarray) -> float:
    """How far (L, s) group (L, s)^-1 is from the target: inf if a rotation is missing."""
    rows = {tuple(W.ravel()): t for W, t in zip(target.rotations, target.translations)}
    conjugate = np.rint(L @ group.rotations @ np.linalg.inv(L)).astype(int)
    wanted = [rows.get(tuple(W.ravel())) for W in conjugate]
    if any(t is None for t in wanted) or len({tuple(W.ravel()) for W in conjugate}) != len(rows):
        return np.inf
    shift = group.translations @ L.T + s - conjugate @ s - np.array(wanted)
    return off_lattice(target, shift)


def off_lattice(group: SpaceGroup, vectors: np.ndarray) -> float:
    reduced = vectors @ np.linalg.inv(group.primitive_basis).T
    return float(np.abs(reduced - np.rint(reduced)).max())


def lattice_is_kept(group: SpaceGroup, target: SpaceGroup, L: np.ndarray) -> bool:
    mapped = np.linalg.inv(target.primitive_basis) @ L @ group.primitive_basis
    return np.allclose(mapped, np.rint(mapped)) and np.isclose(abs(np.linalg.det(L)), 1)


def assert_maps_hold(
    group: SpaceGroup, target: SpaceGroup, maps: EncodingMaps, rng: np.random.Generator
) -> None:
    """(L, s) f_w(u) lies in the orbit of f_w'(M u + v), the map of the positions being a permutation."""
    for e in range(len(maps)):
        assert sorted(maps.permutations[e]) == list(range(len(group.letters)))
        for position in group.wyckoff_positions:
            d = position.num_free
            other = target.wyckoff_positions[maps.permutations[e, position.index]]
            assert other.num_free == d
            assert other.multiplicity == position.multiplicity
            u = rng.uniform(size=d)
            M, v = maps.map_linear[e, position.index], maps.map_shift[e, position.index]
            assert not M[d:].any()
            assert not M[:, d:].any()
            assert not v[d:].any()
            x = maps.linear[e] @ position.coords(u) + maps.shifts[e]
            orbit = other.rotations @ other.coords(M[:d, :d] @ u + v[:d]) + other.translations
            reduced = (orbit - x) @ np.linalg.inv(target.primitive_basis).T
            assert np.abs(reduced - np.rint(reduced)).max(axis=1).min() < 1e-9, (position.label, e)


def some(maps: EncodingMaps, limit: int, rng: np.random.Generator) -> EncodingMaps:
    if len(maps) <= limit:
        return maps
    return maps.take(np.concatenate([[0], rng.choice(np.arange(1, len(maps)), limit - 1, replace=False)]))


@pytest.mark.parametrize("number", ALL)
def test_every_element_conjugates_the_group_into_itself(number: int) -> None:
    group = space_group(number)
    normalizer = group.normalizer
    for maps in (normalizer.linear, normalizer.shifts):
        assert (maps.linear[0] == np.eye(3)).all()
        assert not maps.shifts[0].any()
        assert (maps.permutations[0] == np.arange(len(group.letters))).all()
        assert np.allclose(np.linalg.det(maps.linear), 1)
        for L, s in zip(maps.linear, maps.shifts):
            assert lattice_is_kept(group, group, L)
            assert conjugation_misfit(group, group, L, s) < 1e-9
    assert (normalizer.shifts.linear == np.eye(3)).all()
    # no element is there twice
    proper = group.rotations[np.linalg.det(group.rotations) > 0]
    cosets = {frozenset(tuple(x.ravel()) for x in L @ proper) for L in normalizer.linear.linear}
    assert len(cosets) == len(normalizer.linear)
    for i, s in enumerate(normalizer.shifts.shifts):
        for other in normalizer.shifts.shifts[:i]:
            assert off_lattice(group, s - other) > 1e-6


def test_a_wrong_shift_does_not_conjugate() -> None:
    group = space_group(62)
    assert conjugation_misfit(group, group, np.eye(3, dtype=int), np.array([0.5, 0, 0])) < 1e-9
    assert conjugation_misfit(group, group, np.eye(3, dtype=int), np.array([0.25, 0, 0])) > 0.1
    assert conjugation_misfit(group, group, np.eye(3, dtype=int)[[1, 2, 0]], np.zeros(3)) > 0.1


@pytest.mark.parametrize("number", ALL)
def test_letter_permutations_are_those_of_the_action_on_points(number: int, rng: np.random.Generator) -> None:
    group = space_group(number)
    normalizer = group.normalizer
    assert_maps_hold(group, group, some(normalizer.linear, 12, rng), rng)
    assert_maps_hold(group, group, normalizer.shifts, rng)
    assert_maps_hold(group, group, some(normalizer.linear.then(normalizer.shifts), 8, rng), rng)


def test_a_wrong_permutation_is_noticed(rng: np.random.Generator) -> None:
    group = space_group(221)
    shifts = group.normalizer.shifts
    swapped = replace(shifts, permutations=shifts.permutations[[1, 0]])
    with pytest.raises(AssertionError):
        assert_maps_hold(group, group, swapped, rng)


@pytest.mark.parametrize("number", ALL)
def test_pure_shifts_are_complete(number: int) -> None:
    """Every point s of fine grids with (1, s) G (1, -s) = G is one of the shifts plus a floating one."""
    group, normalizer = space_group(number), space_group(number).normalizer
    to_primitive = np.linalg.inv(group.primitive_basis)
    grids = [
        np.stack(np.meshgrid(*[np.arange(n) / n] * 3, indexing="ij"), axis=-1).reshape(-1, 3) for n in (8, 12)
    ]
    grid = np.concatenate(grids)
    for W in group.rotations[1:]:
        change = (grid - grid @ W.T) @ to_primitive.T
        grid = grid[np.abs(change - np.rint(change)).max(axis=1) < 1e-9]
    fixed = without_floating(normalizer, grid)
    table = without_floating(normalizer, normalizer.shifts.shifts)
    reduced = (fixed[:, None] - table) @ to_primitive.T
    known = (np.abs(reduced - np.rint(reduced)).max(axis=-1) < 1e-9).any(axis=1)
    if normalizer.directions.shape[1]:
        # a grid point may differ from a shift by any floating shift plus a translation
        step = normalizer.functionals @ group.primitive_basis
        assert np.allclose(step, np.rint(step))
        translations = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
        flat = without_floating(normalizer, translations @ group.primitive_basis.T)
        difference = fixed[:, None] - table
        close = np.abs(difference[:, :, None] - flat).max(axis=-1) < 1e-9
        known = close.any(axis=(1, 2))
    assert known.all()


def without_floating(normalizer: Normalizer, shifts: np.ndarray) -> np.ndarray:
    return shifts - shifts @ normalizer.functionals.T @ normalizer.directions.T


@pytest.mark.parametrize("number", ALL)
def test_order_equals_that_of_moyopy(number: int) -> None:
    """Metrics limit the normalizer as little as possible; moyopy counts no floating shifts."""
    group, normalizer = space_group(number), space_group(number).normalizer
    crystal = generic_crystal(number, 0, np.random.default_rng(number))
    if number <= 74:
        cubic = crystal.lattice_params * (np.arange(len(crystal.lattice_params)) == 0)
        crystal = Crystal(number, cubic, crystal.wyckoff_indices, crystal.atomic_numbers, crystal.free_coords)
    cell = crystal.unit_cell("primitive")
    dataset = moyopy.MoyoDataset(
        moyopy.Cell(cell.lattice.tolist(), cell.frac_coords.tolist(), cell.atomic_numbers.tolist()),
        symprec=1e-4,
        setting=moyopy.Setting.standard(),
    )
    assert dataset.number == number
    found = dataset.normalizer_wyckoff_positions(preserve_chirality=True)
    theirs = len(found.stabilizer) * len(found.coset_representatives)

    metric = crystal.lattice @ crystal.lattice.T
    linear = normalizer.linear.linear
    kept = np.abs(np.swapaxes(linear, 1, 2) @ metric @ linear - metric).max(axis=(1, 2)) < 1e-6
    proper = (np.linalg.det(group.rotations) > 0).sum()
    along = without_floating(normalizer, normalizer.shifts.shifts)
    translations = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    flat = without_floating(normalizer, translations @ group.primitive_basis.T)
    distinct: list[np.ndarray] = []
    for s in along:
        if not any((np.abs(s - other - flat).max(axis=1) < 1e-9).any() for other in distinct):
            distinct.append(s)
    assert theirs == kept.sum() * len(distinct) * proper


@pytest.mark.parametrize(("number", "index"), INDEX.items())
def test_index_is_that_of_international_tables(number: int, index: int) -> None:
    assert len(space_group(number).normalizer.elements) == index


@pytest.mark.parametrize("number", [16, 19, 47, 62, 75, 81, 99, 123, 143, 149, 174, 187, 196, 216, 225])
def test_elements_are_closed_under_composition(number: int) -> None:
    """Modulo the group and floating shifts, so that they are a group and not a list of some changes."""
    group, normalizer = space_group(number), space_group(number).normalizer
    elements = normalizer.elements
    twice = elements.then(elements)
    rows = {tuple(L.ravel()): i for i, L in enumerate(elements.linear)}
    for L, s in zip(twice.linear, twice.shifts):
        for W, t in zip(group.rotations, group.translations):
            candidate = L @ W
            if tuple(candidate.ravel()) in rows:
                shift = L @ t + s
                same = (elements.linear == candidate).all(axis=(1, 2))
                difference = without_floating(normalizer, shift - elements.shifts[same])
                if min(off_lattice(group, d) for d in difference) < 1e-9:
                    break
        else:
            pytest.fail(f"the product {L.tolist()}, {s.tolist()} is no element")


@pytest.mark.parametrize("number", ALL)
def test_polar_directions(number: int, rng: np.random.Generator) -> None:
    group, normalizer = space_group(number), space_group(number).normalizer
    directions, functionals = normalizer.directions, normalizer.functionals
    assert directions.shape[1] == len(functionals) == POLAR_CLASSES.get(group.point_group, 0)
    assert np.allclose(functionals @ directions, np.eye(len(functionals)))
    assert np.abs(group.rotations @ directions - directions).max(initial=0) < 1e-12
    assert np.abs(functionals @ group.rotations - functionals).max(initial=0) < 1e-12
    for vectors in (group.primitive_basis.T, group.translations):
        values = vectors @ functionals.T
        assert np.allclose(values, np.rint(values), atol=1e-12)
    if len(functionals):
        phase = functionals @ group.wyckoff_positions[-1].orbit(rng.uniform(size=3)).T
        assert np.allclose(np.exp(2j * np.pi * phase), np.exp(2j * np.pi * phase[:, :1]), atol=1e-9)


def test_number_of_polar_groups() -> None:
    assert sum(space_group(n).normalizer.directions.shape[1] > 0 for n in ALL) == 68


@pytest.mark.parametrize("number", ALL)
def test_mirror_maps_onto_the_mirror_image_group(number: int, rng: np.random.Generator) -> None:
    group, normalizer = space_group(number), space_group(number).normalizer
    if not group.is_sohncke:
        assert normalizer.mirror is None
        assert normalizer.mirror_partner == 0
        return
    partners = dict(ENANTIOMORPHS) | {b: a for a, b in ENANTIOMORPHS}
    assert normalizer.mirror_partner == partners.get(number, number)
    target = space_group(normalizer.mirror_partner)
    assert len(normalizer.mirror) == 1
    L, s = normalizer.mirror.linear[0], normalizer.mirror.shifts[0]
    assert np.isclose(np.linalg.det(L), -1)
    assert lattice_is_kept(group, target, L)
    assert conjugation_misfit(group, target, L, s) < 1e-9
    assert_maps_hold(group, target, normalizer.mirror, rng)
    if number in partners:
        assert conjugation_misfit(group, group, L, s) > 0.1


@pytest.mark.parametrize(("number", "expected"), [(221, 2), (225, 2), (229, 1), (62, 2), (47, 48), (136, 4)])
def test_letter_permutations_are_a_finite_group(number: int, expected: int) -> None:
    permutations = space_group(number).normalizer.letter_permutations
    rows = {tuple(p) for p in permutations}
    assert len(rows) == len(permutations) == expected
    assert (permutations[0] == np.arange(permutations.shape[1])).all()
    assert {tuple(p[q]) for p in permutations for q in permutations} == rows
