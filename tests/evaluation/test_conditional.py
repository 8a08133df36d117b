"""What was asked against what came: hit rates, errors, ranges, compositions."""

from __future__ import annotations

import numpy as np
import pytest

from nucleate.crystal import encode
from nucleate.data.bundled import bundled_crystal
from nucleate.errors import ConfigError, InvalidStructureError
from nucleate.evaluation.conditional import (
    base_rate,
    chemical_system,
    composition_obeys,
    predicted_property,
    range_errors,
    reduced_formula,
    target_errors,
    target_metrics,
)


@pytest.fixture(scope="module")
def rutile():
    return encode(bundled_crystal("tio2-rutile").unit_cell).crystal


def test_predictor_sees_the_crystals_in_batches(rutile):
    seen = []

    def density(crystals):
        seen.append(len(crystals))
        return [crystal.density for crystal in crystals]

    values = predicted_property(density, [rutile, None, rutile, rutile], batch_size=2)
    assert seen == [2, 1]
    assert np.isnan(values[1])
    assert values[[0, 2, 3]] == pytest.approx(rutile.density)
    with pytest.raises(InvalidStructureError, match="given 1 crystals and returned 2"):
        predicted_property(lambda crystals: [1.0, 2.0], [rutile])


def test_hits_and_errors_of_targets():
    errors = target_errors(np.array([1.0, 2.5, np.nan]), np.array([1.2, 2.0, 3.0]), tolerance=0.3)
    assert errors.hit.tolist() == [True, False, False]
    hit_rate, mae, bias = target_metrics("gap", errors, protocol="p", unit="eV", base_rate=0.1)
    assert (hit_rate.value, hit_rate.n, hit_rate.reference) == (pytest.approx(1 / 3), 3, 0.1)
    assert "1 crystals without a value" in hit_rate.note
    assert (mae.value, mae.n) == (pytest.approx(0.35), 2)
    assert bias.value == pytest.approx(0.15)
    with pytest.raises(ConfigError, match="above 0"):
        target_errors(np.zeros(1), np.zeros(1), tolerance=0.0)


def test_errors_of_ranges():
    errors = range_errors(np.array([0.0, 1.0, 2.0, 5.0, np.nan]), 1.0, np.array([2.0, 2.0, 2.0, 4.0, 2.0]))
    assert errors.hit.tolist() == [False, True, True, False, False]
    assert errors.error[:4].tolist() == [-1.0, 0.0, 0.0, 1.0]
    assert np.isnan(errors.error[4])
    with pytest.raises(ConfigError, match="range 3 to 2"):
        range_errors(np.zeros(1), 3.0, 2.0)


def test_base_rate_is_the_hit_rate_of_shuffled_targets(rng):
    # A generator that ignores its condition has the base rate; one that obeys has more.
    reference = rng.gamma(2.0, size=4000)
    targets = rng.gamma(2.0, size=400)
    expected = base_rate(reference, targets=targets, tolerance=0.2)
    blind = target_errors(rng.choice(reference, 400), targets, tolerance=0.2).hit.mean()
    assert blind == pytest.approx(expected, abs=0.05)
    assert target_errors(targets + rng.normal(0, 0.05, 400), targets, tolerance=0.2).hit.mean() > 3 * expected
    assert base_rate(reference, low=1.0, high=2.0) == pytest.approx(
        ((reference >= 1) & (reference <= 2)).mean()
    )
    assert base_rate(np.array([np.nan]), low=0.0) is None


@pytest.mark.parametrize(
    ("given", "name", "answer"),
    [
        ({"formula_asked": "Ti2O4"}, "formula", True),
        ({"formula_asked": "TiO"}, "formula", False),
        ({"chemical_system_asked": "O-Ti"}, "chemical_system", True),
        ({"chemical_system_asked": "Sr-Ti-O"}, "chemical_system", False),
        ({"elements_asked": "Sr,Ti,O"}, "elements", True),
        ({"elements_asked": "Ti"}, "elements", False),
        ({"num_atoms_asked": 6}, "num_atoms", True),
        ({"num_atoms_asked": 6.0}, "num_atoms", True),
        ({"num_atoms_asked": "7-20"}, "num_atoms", False),
        ({"formula_asked": float("nan")}, "formula", None),
        ({}, "formula", None),
    ],
)
def test_composition_obeys(rutile, given, name, answer):
    assert composition_obeys(rutile, given)[name] is answer
    if answer:
        assert composition_obeys(None, given)[name] is False


@pytest.mark.parametrize("text", ["", "Xx2", "sio2", "TiO2.5", "Ti0O2"])
def test_what_is_no_formula_is_refused(text):
    with pytest.raises(ConfigError, match="not a formula"):
        reduced_formula(text)


def test_what_is_no_chemical_system_is_refused():
    assert chemical_system("Na-Cl") == {11, 17}
    with pytest.raises(ConfigError, match="Xx"):
        chemical_system("Na-Xx")
