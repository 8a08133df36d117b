"""Fingerprints against matminer called as the published code calls it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from nucleate.crystal import UnitCell, encode
from nucleate.crystal.convert import unit_cell_to_pymatgen
from nucleate.data.bundled import bundled_crystal, load_bundled
from nucleate.evaluation.fingerprints import (
    composition_fingerprint,
    fingerprints,
    published_scaler,
    structure_fingerprint,
)

# Cubic to monoclinic, one to five elements, molecules and metals.
SMALL = [c for c in load_bundled() if c.unit_cell.num_atoms <= 12][::15]


def _published(unit_cell):
    """struct_fp and comp_fp of CDVAE's evaluation: all sites of the cell, featurised and averaged."""
    from matminer.featurizers.composition.composite import ElementProperty
    from matminer.featurizers.site.fingerprint import CrystalNNFingerprint

    structure = unit_cell_to_pymatgen(unit_cell)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        site = CrystalNNFingerprint.from_preset("ops")
        sites = np.array([site.featurize(structure, i) for i in range(len(structure))])
        features = ElementProperty.from_preset("magpie").featurize(structure.composition)
    mean, std = published_scaler()
    return sites.mean(axis=0), (np.array(features) - mean) / std


@pytest.mark.parametrize("bundled", SMALL, ids=lambda c: c.id)
def test_fingerprints_are_those_of_the_published_code(bundled):
    structure, composition = _published(bundled.unit_cell)
    crystal = encode(bundled.unit_cell).crystal
    found_s, found_c = fingerprints([crystal, bundled.unit_cell])
    assert np.linalg.norm(found_s[1] - structure) < 1e-9
    # One site per orbit; ties between Voronoi neighbours are broken by rounding in a few layered crystals.
    assert np.linalg.norm(found_s[0] - structure) < 0.03
    assert np.allclose(found_c, composition)


def test_fingerprint_does_not_know_the_cell_it_is_given_in():
    crystal = encode(bundled_crystal("tio2-rutile").unit_cell).crystal
    conventional = crystal.unit_cell()
    doubled = UnitCell(
        conventional.lattice * np.array([[2.0], [1.0], [1.0]]),
        np.concatenate([conventional.frac_coords, conventional.frac_coords + np.array([1, 0, 0])])
        / [2, 1, 1],
        np.tile(conventional.atomic_numbers, 2),
    )
    assert np.allclose(structure_fingerprint(doubled), structure_fingerprint(crystal), atol=1e-6)


def test_other_chemistry_and_other_structure_move_their_own_fingerprint():
    from nucleate.evaluation.coverage import COMPOSITION_CUTOFFS, STRUCTURE_CUTOFFS

    salt = encode(bundled_crystal("nacl-rock-salt").unit_cell).crystal
    # The same two elements at the places of caesium chloride.
    other = UnitCell(np.eye(3) * 3.5, np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.array([11, 17]))
    s, c = fingerprints([salt, encode(other).crystal])
    assert np.linalg.norm(s[0] - s[1]) > STRUCTURE_CUTOFFS["mp_20"]
    assert np.linalg.norm(c[0] - c[1]) == 0
    near, far = (np.linalg.norm(c[0] - composition_fingerprint(x)) for x in ({19: 1, 17: 1}, {22: 1, 6: 1}))
    assert 0 < near < COMPOSITION_CUTOFFS["mp_20"] < far
    assert composition_fingerprint({11: 4, 17: 4}) is composition_fingerprint({11: 1, 17: 1})


def test_what_has_no_fingerprint_is_not_a_number():
    crushed = UnitCell(np.diag([4.0, 4.0, 0.01]), np.array([[0, 0, 0], [0.5, 0.5, 0]]), np.array([11, 17]))
    assert np.isnan(structure_fingerprint(crushed)).all()
    dilute = UnitCell(np.eye(3) * 40.0, np.zeros((1, 3)), np.array([2]))
    assert not structure_fingerprint(dilute).any()


def test_scaler_is_that_of_real_compositions():
    # Means of minimum, maximum and range of one property: range = maximum - minimum, also on average.
    mean, std = published_scaler()
    assert np.allclose(mean[1::6] - mean[0::6], mean[2::6])
    assert (std > 0).all()
