"""Encoding foreign cells: every Wyckoff position, disguised copies, noise, subgroups, handedness, refusals."""

from __future__ import annotations

from dataclasses import replace

import moyopy
import numpy as np
import pytest
import spglib
from hypothesis import given, settings
from hypothesis import strategies as st
from invariants import assert_crystal_invariants
from synthetic import (
    crystal_on,
    disguised,
    generic_crystal,
    lattice_params,
    noisy,
    random_crystal,
    random_rotation,
    same_atoms,
    same_encoding,
    supercell,
)

from nucleate.crystal import Crystal, UnitCell, encode, pseudo_symmetry, space_group
from nucleate.crystal.subgroups import translationengleiche_subgroups
from nucleate.data.bundled import bundled_crystal
from nucleate.errors import InvalidStructureError, StructureTooLargeError, SymmetryError

ALL = range(1, 231)
REAL = [
    "caal2si2o8-anorthite", "se-red-selenium", "catisio5-titanite", "mg2sio4-forsterite", "p-black-phosphorus",
    "s8-alpha-sulfur", "bpo4-boron-phosphate", "tio2-rutile", "tio2-anatase", "sio2-alpha-quartz-p3-121",
    "fetio3-ilmenite", "al2o3-corundum", "linbo3-lithium-niobate", "zns-wurtzite", "fe2p-barringerite",
    "mgzn2-hexagonal-laves-phase-c14", "fesi-fersilicite", "fes2-pyrite", "zns-sphalerite", "srtio3-strontium-titanate",
    "nacl-rock-salt", "mgal2o4-spinel", "y3al5o12-yttrium-aluminium-garnet", "kclo3-potassium-chlorate",
]  # fmt: skip


def moyo(cell: UnitCell, *, symprec: float) -> moyopy.MoyoDataset:
    return moyopy.MoyoDataset(
        moyopy.Cell(cell.lattice.tolist(), cell.frac_coords.tolist(), cell.atomic_numbers.tolist()),
        symprec=symprec,
        setting=moyopy.Setting.standard(),
    )


# ---- every position ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ALL)
def test_every_position_is_found_and_comes_back(number: int) -> None:
    """One orbit on the position, three general ones: moyopy finds the group and, up to the normalizer, the letters."""
    group = space_group(number)
    permutations = group.normalizer.letter_permutations
    rng = np.random.default_rng(number)
    for position in group.wyckoff_positions:
        crystal = generic_crystal(number, position.index, rng)
        cell = crystal.unit_cell("primitive")
        dataset = moyo(cell, symprec=1e-4)
        assert dataset.number == number, position.label
        theirs = np.array([group.letters.index(letter) for letter in dataset.wyckoffs])
        ours = crystal.wyckoff_indices[crystal.atom_to_orbit]
        assert (permutations[:, ours] == theirs).all(axis=1).any(), position.label
        # the orientation of a symbol follows the axes, which a permutation may exchange
        symbols = [sorted(s.replace(".", "")) for s in dataset.site_symmetry_symbols]
        assert symbols == [sorted(group.wyckoff_positions[i].site_symmetry.replace(".", "")) for i in ours]

        encoded = encode(cell, symprec=1e-4)
        assert encoded.crystal.space_group_number == number
        assert encoded.crystal.num_orbits == 4
        assert same_atoms(encoded.unit_cell(), cell, tolerance=1e-6), position.label
        assert encoded.max_displacement < 1e-6
        assert encoded.max_strain < 1e-6
        assert encoded.crystal.prototype_key == crystal.prototype_key
    assert_crystal_invariants(encoded.crystal)


@pytest.mark.parametrize("number", ALL)
def test_invariants_hold_on_every_position(number: int) -> None:
    rng = np.random.default_rng(number)
    for position in space_group(number).wyckoff_positions:
        assert_crystal_invariants(
            crystal_on(number, [position.index], rng, atomic_numbers=[14], distance=0.2)
        )


@pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING:DeprecationWarning")  # spglib's own
@pytest.mark.parametrize("number", ALL)
def test_spglib_finds_the_group_of_the_general_position(number: int) -> None:
    crystal = generic_crystal(number, 0, np.random.default_rng(number))
    cell = crystal.unit_cell("primitive")
    found = spglib.get_symmetry_dataset((cell.lattice, cell.frac_coords, cell.atomic_numbers), symprec=1e-4)
    assert found.number == number
    assert found.hall_number > 0


# ---- other cells of the same crystal ---------------------------------------------------------------------------


def assert_same_crystal(cell: UnitCell, crystal: Crystal, *, symprec: float) -> None:
    encoded = encode(cell, symprec=symprec, max_atoms=10_000)
    assert_same(encoded.crystal, crystal)
    assert same_atoms(encoded.unit_cell(), cell, tolerance=1e-6)
    assert np.isclose(np.linalg.det(encoded.rotation), 1)


def assert_same(found: Crystal, crystal: Crystal) -> None:
    assert found.prototype_key == crystal.prototype_key
    assert found.bucket_key == crystal.bucket_key
    assert found.handedness == crystal.handedness
    assert same_encoding(found.canonical(), crystal.canonical())


@pytest.mark.parametrize("number", [*range(1, 231, 5), 76, 78, 144, 145, 146, 155, 161, 169, 170, 212, 213])
@pytest.mark.parametrize("left_handed", [False, True])
def test_disguised_random_crystals_are_recognised(number: int, left_handed: bool) -> None:
    rng = np.random.default_rng(number)
    crystal = random_crystal(number, rng)
    crystal = encode(crystal.unit_cell("primitive"), symprec=1e-4).crystal  # its group may be higher
    cell = disguised(crystal.unit_cell("primitive"), rng, left_handed=left_handed)
    assert (np.linalg.det(cell.lattice) < 0) == left_handed
    assert_same_crystal(cell, crystal, symprec=1e-4)


@pytest.mark.parametrize("crystal_id", REAL)
@pytest.mark.parametrize("left_handed", [False, True])
def test_disguised_real_crystals_are_recognised(
    crystal_id: str, left_handed: bool, rng: np.random.Generator
) -> None:
    bundled = bundled_crystal(crystal_id)
    crystal = encode(bundled.unit_cell).crystal
    assert crystal.space_group_number == bundled.space_group_number
    assert_crystal_invariants(crystal)
    cell = disguised(crystal.unit_cell("primitive"), rng, left_handed=left_handed)
    assert_same_crystal(cell, crystal, symprec=0.01)


@settings(max_examples=30, deadline=None)
@given(
    crystal_id=st.sampled_from(["tio2-rutile", "zns-wurtzite", "se-grey-selenium", "zro2-baddeleyite"]),
    rows=st.lists(st.integers(-2, 2), min_size=9, max_size=9),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_supercell_is_recognised(crystal_id: str, rows: list[int], seed: int) -> None:
    matrix = np.array(rows).reshape(3, 3)
    if not 1 <= abs(round(np.linalg.det(matrix))) <= 8:
        matrix = np.eye(3, dtype=int)
    crystal = encode(bundled_crystal(crystal_id).unit_cell).crystal
    larger = supercell(crystal.unit_cell("primitive"), matrix)
    rng = np.random.default_rng(seed)
    cell = replace(larger, lattice=larger.lattice @ random_rotation(rng))
    assert_same_crystal(cell, crystal, symprec=0.01)


# ---- projection ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crystal_id", REAL)
def test_noise_below_symprec_is_projected_away(crystal_id: str, rng: np.random.Generator) -> None:
    """The decoded cell has the group to 1e-8 Å; the noisy one, which is what comes without projection, has not."""
    exact = encode(bundled_crystal(crystal_id).unit_cell).crystal
    cell = noisy(exact.unit_cell("primitive"), rng, size=2e-3)
    lattice = cell.lattice @ (np.eye(3) + 1e-5 * rng.normal(size=(3, 3)))
    cell = replace(cell, lattice=lattice @ random_rotation(rng))
    encoded = encode(cell)
    number = exact.space_group_number
    assert encoded.crystal.space_group_number == number
    assert 1e-4 < encoded.max_displacement < 8e-3
    assert encoded.max_strain < 5e-4
    ideal = encoded.unit_cell()
    assert same_atoms(ideal, cell, tolerance=1.5e-2)
    assert not same_atoms(ideal, cell, tolerance=1e-5)
    assert moyo(ideal, symprec=1e-8).number == number
    assert moyo(cell, symprec=1e-8).number < 3  # the negative control
    assert_crystal_invariants(encoded.crystal)
    assert np.abs(encoded.crystal.lattice_params - exact.lattice_params).max() < 1e-2
    assert encoded.crystal.prototype_key == exact.prototype_key


def test_the_reported_displacement_is_the_largest_of_all_atoms(rng: np.random.Generator) -> None:
    cell = noisy(bundled_crystal("mg2sio4-forsterite").unit_cell, rng, size=3e-3)
    encoded = encode(cell)
    difference = (encoded.unit_cell().frac_coords - cell.frac_coords) @ encoded.unit_cell().lattice
    assert np.isclose(np.linalg.norm(difference, axis=1).max(), encoded.max_displacement, rtol=1e-3)


# ---- subgroups -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "crystal_id",
    ["tio2-rutile", "srtio3-strontium-titanate", "mgo-periclase", "zns-wurtzite", "al2o3-corundum",
     "mg2sio4-forsterite", "sio2-alpha-quartz-p3-121", "c-diamond", "tio2-anatase", "zro2-baddeleyite"],
)  # fmt: skip
def test_descent_to_subgroups(crystal_id: str, rng: np.random.Generator) -> None:
    cell = bundled_crystal(crystal_id).unit_cell
    cell = replace(cell, lattice=cell.lattice @ random_rotation(rng))
    number = bundled_crystal(crystal_id).space_group_number
    available = sorted({s.space_group_number for s in translationengleiche_subgroups(number)})
    assert 1 in available
    for subgroup in {*available[:3], *available[:: max(1, len(available) // 6)]}:
        encoded = encode(cell, subgroup=subgroup)
        assert encoded.crystal.space_group_number == subgroup
        assert same_atoms(encoded.unit_cell(), cell, tolerance=1e-3)
        assert encoded.max_displacement < 1e-3
        assert_crystal_invariants(encoded.crystal)
        # nothing was lost: the full group is found again
        assert moyo(encoded.crystal.unit_cell("primitive"), symprec=1e-4).number == number
    p1 = encode(cell, subgroup=1).crystal
    assert p1.num_orbits == encode(cell).crystal.num_atoms_primitive


def test_a_subgroup_of_several_classes_is_chosen_by_its_class() -> None:
    """Pnma has P2_1/c along two of its axes: the same number, two different descriptions."""
    bundled = bundled_crystal("mg2sio4-forsterite")
    classes = [s for s in translationengleiche_subgroups(62) if s.space_group_number == 14]
    assert len(classes) > 1
    described = [encode(bundled.unit_cell, subgroup=chosen) for chosen in classes]
    for encoded in described:
        assert encoded.crystal.space_group_number == 14
        assert same_atoms(encoded.unit_cell(), bundled.unit_cell, tolerance=1e-3)
        assert moyo(encoded.crystal.unit_cell("primitive"), symprec=1e-4).number == 62
    axes = {np.linalg.norm(encoded.crystal.lattice[1]).round(3) for encoded in described}
    assert len(axes) == len(classes)  # each has another axis as its unique one
    with pytest.raises(SymmetryError, match=r"no translationengleiche subgroup 14 in the basis given"):
        encode(bundled.unit_cell, subgroup=replace(classes[0], origin_shift=np.array([0.1, 0.2, 0.3])))


def test_noise_is_kept_in_p1(rng: np.random.Generator) -> None:
    cell = noisy(bundled_crystal("tio2-rutile").unit_cell, rng, size=2e-3)
    encoded = encode(cell, subgroup=1)
    assert same_atoms(encoded.unit_cell(), cell, tolerance=1e-9)
    assert encoded.max_displacement < 1e-9


def test_a_group_that_is_no_subgroup_is_refused_with_those_that_are() -> None:
    with pytest.raises(
        SymmetryError, match=r"136 \(P4_2/mnm\) has no translationengleiche subgroup 225; it has 1, 2, "
    ):
        encode(bundled_crystal("tio2-rutile").unit_cell, subgroup=225)


# ---- handedness ------------------------------------------------------------------------------------------------


def reflected(cell: UnitCell) -> UnitCell:
    """The mirror image: Cartesian z reversed."""
    return replace(cell, lattice=cell.lattice * [1, 1, -1])


@pytest.mark.parametrize(
    ("crystal_id", "partner"),
    [
        ("sio2-alpha-quartz-p3-121", 154), ("sio2-alpha-quartz-p3-221", 152), ("hgs-cinnabar", 152),
        ("sio2-alpha-cristobalite", 96), ("crcl3-chromium-trichloride", 153), ("mn-beta-manganese", 212),
        ("crsi2-chromium-disilicide", 181), ("fesi-fersilicite", 198), ("ni3s2-heazlewoodite", 155),
        ("fe3c-bainite-carbide", 182),
    ],
)  # fmt: skip
def test_the_mirror_image_of_a_chiral_crystal(
    crystal_id: str, partner: int, rng: np.random.Generator
) -> None:
    cell = bundled_crystal(crystal_id).unit_cell
    crystal, mirrored = encode(cell).crystal, encode(reflected(cell)).crystal
    assert crystal.is_chiral
    assert mirrored.space_group_number == partner
    assert mirrored.prototype_key == crystal.prototype_key
    assert mirrored.bucket_key == crystal.bucket_key
    assert mirrored.handedness == -crystal.handedness
    assert crystal.handedness in (1, -1)
    # a left-handed basis of the same crystal does not change its hand, a left-handed basis of the image does
    left = disguised(cell, rng, left_handed=True)
    assert_same(encode(left, max_atoms=5000).crystal, crystal)
    assert_same(encode(reflected(left), max_atoms=5000).crystal, mirrored)


@pytest.mark.parametrize(
    ("left", "right"),
    [(76, 78), (91, 95), (92, 96), (144, 145), (151, 153), (152, 154), (169, 170), (171, 172), (178, 179),
     (180, 181), (212, 213)],
)  # fmt: skip
def test_enantiomorphic_pairs(left: int, right: int) -> None:
    crystal = generic_crystal(left, 0, np.random.default_rng(left))
    cell = crystal.unit_cell("primitive")
    assert encode(cell, symprec=1e-4).crystal.space_group_number == left
    mirrored = encode(reflected(cell), symprec=1e-4).crystal
    assert mirrored.space_group_number == right
    assert mirrored.prototype_key == crystal.prototype_key
    assert (crystal.handedness, mirrored.handedness) == (1, -1)
    assert same_atoms(encode(reflected(cell), symprec=1e-4).unit_cell(), reflected(cell), tolerance=1e-6)


# ---- pseudo-symmetry and refusals --------------------------------------------------------------------------------


def test_pseudo_symmetry_by_tolerance() -> None:
    cell = bundled_crystal("srtio3-strontium-titanate").unit_cell
    assert pseudo_symmetry(cell) == {0.1: 221, 0.01: 221, 1e-3: 221}
    coords = cell.frac_coords.copy()
    coords[np.flatnonzero(cell.atomic_numbers == 22)[0], 2] += 0.03 / 3.9  # titanium moves 0.03 Å along c
    shifted = replace(cell, frac_coords=coords)
    assert pseudo_symmetry(shifted) == {0.1: 221, 0.01: 99, 1e-3: 99}
    assert pseudo_symmetry(shifted, tolerances=(0.05,)) == {0.05: 221}


def test_pseudo_symmetry_says_none_where_the_search_fails() -> None:
    cell = UnitCell(np.eye(3) * 4, np.array([[0.0, 0, 0], [0.02, 0, 0]]), np.array([8, 8]))
    assert pseudo_symmetry(cell, tolerances=(0.1, 1e-3)) == {0.1: None, 1e-3: 123}


def test_too_large_a_displacement_is_refused_with_the_numbers(rng: np.random.Generator) -> None:
    cell = noisy(bundled_crystal("tio2-rutile").unit_cell, rng, size=0.02)
    message = r"136 \(P4_2/mnm\).*atom \d+ would move 0\.0\d+ Å \(limit 0\.001\)"
    with pytest.raises(SymmetryError, match=message):
        encode(cell, symprec=0.1, max_displacement=1e-3)
    assert encode(cell, symprec=0.1).crystal.space_group_number == 136
    assert encode(cell, symprec=0.1, max_displacement=1e-3, subgroup=1).max_displacement < 1e-9


def test_too_large_a_strain_is_refused_with_the_numbers() -> None:
    cell = bundled_crystal("mgo-periclase").unit_cell
    strained = replace(cell, lattice=cell.lattice @ np.diag([1, 1, 1.003]))
    with pytest.raises(SymmetryError, match=r"strain is 0\.00\d+ \(limit 0\.0001\)"):
        encode(strained, symprec=0.1, max_strain=1e-4)
    encoded = encode(strained, symprec=0.1)
    assert encoded.crystal.space_group_number == 225
    assert np.isclose(encoded.max_strain, 2 / 3 * np.log(1.003), rtol=1e-2)
    assert encode(strained, symprec=1e-3).crystal.space_group_number == 139


def rocksalt(**changes: np.ndarray) -> UnitCell:
    return replace(bundled_crystal("nacl-rock-salt").unit_cell, **changes)


def test_atoms_on_top_of_each_other_are_refused() -> None:
    cell = rocksalt()
    doubled = UnitCell(
        cell.lattice,
        np.concatenate([cell.frac_coords, cell.frac_coords[:1] + np.array([1.0, 0, 1e-4])]),
        np.append(cell.atomic_numbers, cell.atomic_numbers[0]),
    )
    with pytest.raises(
        InvalidStructureError, match=r"on top of each other: .*\(site 1\) and .*\(site 9\) \(0\.000"
    ):
        encode(doubled)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lattice": np.full((3, 3), np.nan)}, "NaN or infinite"),
        ({"lattice": np.diag([5.6, 5.6, 0.0])}, "without volume"),
        ({"lattice": np.diag([5.6, np.inf, 5.6])}, "NaN or infinite"),
        ({"frac_coords": np.full((8, 3), np.nan)}, "must be finite"),
        ({"atomic_numbers": np.array([11, 11, 11, 11, 17, 17, 17, 0])}, "site 8 has atomic number 0"),
        ({"frac_coords": np.zeros((0, 3)), "atomic_numbers": np.zeros(0, dtype=int)}, "no atoms"),
    ],
)
def test_what_is_no_crystal_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(InvalidStructureError, match=message):
        encode(rocksalt(**changes))


def test_more_atoms_than_allowed_are_refused() -> None:
    with pytest.raises(StructureTooLargeError, match="limit is 7"):
        encode(rocksalt(), max_atoms=7)


@settings(max_examples=60, deadline=None)
@given(
    lattice=st.lists(st.floats(-8, 8), min_size=9, max_size=9),
    coords=st.lists(st.floats(-3, 3), min_size=3, max_size=18),
)
def test_arbitrary_cells_are_encoded_or_refused_with_a_reason(
    lattice: list[float], coords: list[float]
) -> None:
    points = np.array(coords[: len(coords) // 3 * 3]).reshape(-1, 3)
    cell = UnitCell(np.array(lattice).reshape(3, 3), points, np.full(len(points), 6))
    try:
        encoded = encode(cell)
    except (InvalidStructureError, SymmetryError):
        return
    assert same_atoms(encoded.unit_cell(), cell, tolerance=0.5)
    assert_crystal_invariants(encoded.crystal)


def test_params_helper_is_generic() -> None:
    """The metrics used above have no accidental symmetry."""
    for number in (2, 14, 62):
        lengths = np.linalg.norm(
            space_group(number).lattice_subspace.to_lattice(
                lattice_params(number, np.random.default_rng(number)), num_atoms=4
            ),
            axis=1,
        )
        assert np.abs(lengths[:, None] - lengths + np.eye(3)).min() > 1e-2
