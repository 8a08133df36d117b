"""Canonical encoding and keys: the same for every encoding of a crystal, different for different crystals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import random_crystal, same_encoding, same_geometry

from nucleate.crystal import Crystal, encode
from nucleate.crystal.reencode import mirror_image, random_encoding
from nucleate.data.bundled import bundled_crystal, load_bundled

ALL = range(1, 231)


def crystal_named(crystal_id: str) -> Crystal:
    return encode(bundled_crystal(crystal_id).unit_cell).crystal


def assert_same_keys(a: Crystal, b: Crystal) -> None:
    assert a.prototype_key == b.prototype_key
    assert a.bucket_key == b.bucket_key


def assert_canonical(crystal: Crystal, rng: np.random.Generator, *, times: int = 2) -> None:
    """Every encoding has the crystal's keys, handedness and canonical form; the mirror image the opposite hand."""
    canonical = crystal.canonical()
    assert same_geometry(crystal, canonical)
    assert same_encoding(canonical.canonical(), canonical)
    changed = crystal
    for _ in range(times):
        changed = random_encoding(changed, rng)
        assert_same_keys(changed, crystal)
        assert changed.handedness == crystal.handedness
        assert same_encoding(changed.canonical(), canonical)
    mirrored = mirror_image(changed)
    assert_same_keys(mirrored, crystal)
    assert mirrored.handedness == -crystal.handedness
    if not crystal.is_chiral:
        assert crystal.handedness == 0
        assert same_encoding(mirrored.canonical(), canonical)


@pytest.mark.parametrize("number", ALL)
def test_every_encoding_has_one_canonical_form(number: int) -> None:
    rng = np.random.default_rng(number)
    crystal = random_crystal(number, rng)
    assert_canonical(crystal, rng)
    if crystal.is_chiral and number > 1:  # two atoms in P1 have an inversion centre
        assert crystal.handedness in (1, -1)


@settings(max_examples=30, deadline=None)
@given(number=st.integers(1, 230), seed=st.integers(0, 2**32 - 1))
def test_every_encoding_of_any_crystal(number: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert_canonical(random_crystal(number, rng), rng)


@pytest.mark.parametrize("number", range(1, 16))
def test_far_cells_of_monoclinic_and_triclinic_crystals_are_reduced(number: int) -> None:
    rng = np.random.default_rng(number)
    crystal = random_crystal(number, rng)
    sheared = crystal
    while np.linalg.norm(sheared.lattice, axis=1).max() < 20 * np.linalg.norm(crystal.lattice, axis=1).max():
        sheared = random_encoding(sheared, rng)
    assert same_encoding(sheared.canonical(), crystal.canonical())
    assert_same_keys(sheared, crystal)


@pytest.mark.parametrize("crystal_id", [b.id for b in load_bundled()])
def test_real_crystals_with_their_special_coordinates(crystal_id: str, rng: np.random.Generator) -> None:
    crystal = crystal_named(crystal_id)
    canonical = crystal.canonical()
    changed = random_encoding(crystal, rng)
    assert_same_keys(changed, crystal)
    assert same_encoding(changed.canonical(), canonical)
    assert changed.handedness == crystal.handedness == -mirror_image(crystal).handedness


@pytest.mark.parametrize(
    ("crystal_id", "subgroup"),
    [
        ("zro2-baddeleyite", 7), ("pu-alpha-plutonium", 4), ("tio2-rutile", 1), ("mgo-periclase", 1),
        ("be-beryllium", 6), ("nacl-rock-salt", 8), ("srtio3-strontium-titanate", 99), ("zns-wurtzite", 173),
        ("tio2-anatase", 9), ("mg-magnesium", 186), ("fes2-pyrite", 29), ("c-diamond", 43),
    ],
)  # fmt: skip
def test_crystals_whose_metric_and_origin_have_more_symmetry_than_their_group(
    crystal_id: str, subgroup: int, rng: np.random.Generator
) -> None:
    """Ties everywhere: real crystals described in subgroups, polar ones with origins at the cut of the phase."""
    cell = crystal_named(crystal_id).unit_cell("primitive")
    crystal = encode(cell, subgroup=subgroup).crystal
    canonical = crystal.canonical()
    for _ in range(4):
        changed = random_encoding(crystal, rng)
        assert same_encoding(changed.canonical(), canonical, tolerance=1e-5)
        assert_same_keys(changed, crystal)
    assert crystal.handedness == 0  # achiral crystals, also in a group without improper operations


@pytest.mark.parametrize(
    ("crystal_id", "prototype", "bucket"),
    [
        ("nacl-rock-salt", "225:a|b", "225:Cl=a|Na=b"),
        ("srtio3-strontium-titanate", "221:a|b|c", "221:O=c|Sr=a|Ti=b"),
        ("tio2-rutile", "136:a|f", "136:O=f|Ti=a"),
        ("tio2-anatase", "141:a|e", "141:O=e|Ti=a"),
        ("mgal2o4-spinel", "227:a|d|e", "227:Al=c|Mg=b|O=e"),
        ("c-diamond", "227:a", "227:C=a"),
        ("zns-sphalerite", "216:a|c", "216:S=a|Zn=c"),
        ("zns-wurtzite", "186:b|b", "186:S=b|Zn=b"),
    ],
)
def test_keys_of_known_structures(crystal_id: str, prototype: str, bucket: str) -> None:
    """Letters of International Tables, the smallest over the origins and axes that the normalizer allows."""
    crystal = crystal_named(crystal_id)
    assert crystal.prototype_key == prototype
    assert crystal.bucket_key == bucket


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("zns-wurtzite", "zns-sphalerite"),
        ("tio2-rutile", "tio2-anatase"),
        ("fes2-pyrite", "fes2-marcasite"),
        ("nacl-rock-salt", "caf2-fluorite"),
        ("caco3-calcite", "caco3-aragonite"),
        ("c-diamond", "al-aluminium"),
    ],
)
def test_different_structures_have_different_keys(one: str, other: str) -> None:
    a, b = crystal_named(one), crystal_named(other)
    assert a.prototype_key != b.prototype_key
    assert a.bucket_key != b.bucket_key


def swapped(crystal: Crystal) -> Crystal:
    """The crystal with its two elements exchanged."""
    a, b = sorted(set(crystal.atomic_numbers.tolist()))
    return replace(crystal, atomic_numbers=np.where(crystal.atomic_numbers == a, b, a))


@pytest.mark.parametrize("crystal_id", ["tio2-rutile", "caf2-fluorite", "al2o3-corundum"])
def test_swapped_elements_of_unequal_sites_are_another_bucket_of_one_prototype(crystal_id: str) -> None:
    crystal = crystal_named(crystal_id)
    assert swapped(crystal).bucket_key != crystal.bucket_key
    assert swapped(crystal).prototype_key == crystal.prototype_key


@pytest.mark.parametrize(
    "crystal_id", ["nacl-rock-salt", "zns-sphalerite", "nial-nickel-aluminium-caesium-chloride-type"]
)
def test_swapped_elements_of_equivalent_sites_are_the_same_crystal(crystal_id: str) -> None:
    crystal = crystal_named(crystal_id)
    assert swapped(crystal).bucket_key == crystal.bucket_key
    assert same_encoding(swapped(crystal).canonical(), crystal.canonical())


def test_wyckoff_sets_that_only_the_metric_tells_apart() -> None:
    """The three axes of Pmmm: letters i, k and u are one set, so one key, whichever axis is long."""

    def crystal(letter: str, params: list[float]) -> Crystal:
        index = "abcdefghijklmnopqrstuvwxyzA".index(letter)
        free = np.array([[0.0, 0, 0], [0.31, 0, 0]])
        return Crystal(47, np.array([1.6, *params]), np.array([0, index]), np.array([22, 8]), free)

    along_a, along_b, along_c = crystal("i", [0.1, 0.2]), crystal("m", [0.1, 0.2]), crystal("q", [0.1, 0.2])
    assert along_a.prototype_key == along_b.prototype_key == along_c.prototype_key
    assert not same_encoding(along_a.canonical(), along_b.canonical())


@pytest.mark.parametrize(("left", "right"), [("sio2-alpha-quartz-p3-121", "sio2-alpha-quartz-p3-221")])
def test_left_and_right_quartz(left: str, right: str) -> None:
    a, b = crystal_named(left), crystal_named(right)
    assert {a.space_group_number, b.space_group_number} == {152, 154}
    assert_same_keys(a, b)
    assert a.handedness == -b.handedness != 0
    mirrored = mirror_image(a)
    assert mirrored.space_group_number == b.space_group_number
    assert_same_keys(mirrored, b)
    assert same_geometry(mirrored, a)


def test_free_parameters_never_enter_the_keys(rng: np.random.Generator) -> None:
    crystal = crystal_named("tio2-rutile")
    moved = replace(crystal, lattice_params=crystal.lattice_params + 0.01)
    moved = replace(moved, free_coords=crystal.free_coords * 1.01)
    assert_same_keys(crystal, moved)
    assert not same_encoding(crystal.canonical(), moved.canonical())
