"""Other encodings are the same crystal: same distances, same keys; the mirror image has the other hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from invariants import assert_crystal_invariants
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure
from synthetic import geometry, neighbours, random_crystal, same_geometry

from nucleate.crystal import Crystal, space_group
from nucleate.crystal.reencode import encodings_of, fix_floating_origin, mirror_image, random_encoding

ALL = range(1, 231)


def chirality(crystal: Crystal) -> float:
    """A pseudoscalar of the atoms: changes sign under reflection, zero for every achiral crystal."""
    cell = crystal.unit_cell("primitive")
    terms = []
    for vectors, elements in neighbours(cell, cell.frac_coords, radius=4.0):
        r = np.linalg.norm(vectors, axis=1)
        weight = (4.0 - r) ** 2 / r
        a = (weight[:, None] * vectors).sum(axis=0)
        b = ((weight * elements / r)[:, None] * vectors).sum(axis=0)
        quadrupole = np.einsum("n,ni,nj->ij", weight, vectors, vectors)
        c = quadrupole @ (a + b)
        terms.append((np.linalg.det(np.stack([a, b, c])), np.prod(np.linalg.norm([a, b, c], axis=1)) + 1))
    products, scales = np.array(terms).sum(axis=0)
    return products / scales


@pytest.mark.parametrize("number", ALL)
def test_random_encodings_are_the_same_crystal(number: int) -> None:
    rng = np.random.default_rng(number)
    crystal = random_crystal(number, rng)
    changed = random_encoding(crystal, rng)
    assert_crystal_invariants(changed)
    assert same_geometry(crystal, changed)
    assert np.isclose(chirality(changed), chirality(crystal), atol=1e-9)
    mirrored = mirror_image(changed)
    assert same_geometry(crystal, mirrored)
    assert np.isclose(chirality(mirrored), -chirality(crystal), atol=1e-9)
    if crystal.group.is_sohncke:
        assert_crystal_invariants(mirrored)
    else:
        assert mirrored is changed


def test_chirality_is_seen_in_chiral_crystals_only() -> None:
    """Negative control of the pseudoscalar used above."""
    chiral = [abs(chirality(random_crystal(n, np.random.default_rng(n)))) for n in (19, 76, 152, 198)]
    achiral = [abs(chirality(random_crystal(n, np.random.default_rng(n)))) for n in (14, 33, 82, 220)]
    assert min(chiral) > 1e-5 > 1e-9 > max(achiral)


def test_pymatgen_agrees_that_random_encodings_are_the_same() -> None:
    matcher = StructureMatcher(scale=False)

    def structure(crystal: Crystal) -> Structure:
        cell = crystal.unit_cell("primitive")
        return Structure(Lattice(cell.lattice), cell.atomic_numbers, cell.frac_coords)

    for number in (4, 8, 15, 31, 62, 82, 99, 144, 161, 178, 205):
        rng = np.random.default_rng(number)
        crystal = random_crystal(number, rng)
        assert matcher.fit(structure(crystal), structure(random_encoding(crystal, rng)))


def test_a_shift_that_is_not_in_the_normalizer_changes_the_crystal() -> None:
    """Negative control: free coordinates moved by any other amount give other distances."""
    crystal = random_crystal(62, np.random.default_rng(1))
    moved = replace(crystal, free_coords=crystal.free_coords + 0.03 * (crystal.free_coords != 0))
    assert geometry(moved).shape != geometry(crystal).shape or not same_geometry(crystal, moved)


@pytest.mark.parametrize("number", [1, 4, 8, 9, 29, 43, 76, 99, 144, 161, 169, 186])
def test_floating_origin_is_fixed_by_the_circular_mean(number: int) -> None:
    rng = np.random.default_rng(number)
    crystal = random_crystal(number, rng)
    normalizer = space_group(number).normalizer
    fixed = fix_floating_origin(normalizer, encodings_of(crystal))
    assert len(fixed) >= 1
    for free in fixed.free_coords:
        again = replace(crystal, free_coords=free)
        assert same_geometry(crystal, again)
        phases = np.exp(2j * np.pi * again.representatives @ normalizer.functionals.T)
        weights = crystal.multiplicities_primitive[:, None]
        for column in phases.T:
            means = [(weights[:, 0] * column**h).sum() / weights.sum() for h in range(1, 9)]
            usable = next(m for m in means if abs(m) >= 0.05)
            assert abs(np.angle(usable)) < 1e-9
