"""Volume per atom: accuracy and calibration on held-out formulas, controls, extrapolation, invariances."""

from __future__ import annotations

from importlib import resources

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleate.physics import volume_per_atom, volumes_per_atom
from nucleate.physics.volume import composition_matrix, surrogate_element, volume_network


@pytest.fixture(scope="module")
def val(shared_data):
    """(atomic numbers, log volume per atom) of the val pool: formulas the network never saw."""
    columns = ["numbers", "lattice"]
    table = pq.read_table(shared_data / "mp_20.parquet", columns=columns, filters=[("pool", "=", "val")])
    numbers = [np.array(n, dtype=np.int64) for n in table["numbers"].to_pylist()]
    cells = np.array(table["lattice"].to_pylist()).reshape(-1, 3, 3)
    return numbers, np.log(np.abs(np.linalg.det(cells)) / [len(n) for n in numbers])


def test_error_on_held_out_formulas_is_half_of_the_linear_fit(val):
    numbers, truth = val
    error = np.abs(np.log(volumes_per_atom(numbers).mean) - truth)
    # A linear fit on elements reaches 0.079 on these formulas.
    assert error.mean() < 0.043
    assert np.median(error) < 0.023


def test_shuffled_volumes_are_worse(val, rng):
    numbers, truth = val
    guess = np.log(volumes_per_atom(numbers).mean)
    assert np.abs(guess - truth[rng.permutation(len(truth))]).mean() > 5 * np.abs(guess - truth).mean()


def test_predicted_spread_covers_the_errors(val):
    numbers, truth = val
    estimates = volumes_per_atom(numbers)
    ratio = np.abs(np.log(estimates.mean) - truth) / estimates.log_std
    assert 0.6 < (ratio < 1).mean() < 0.8
    assert 0.9 < (ratio < 2).mean() < 0.98
    # Where it says it knows less it does know less.
    wide = estimates.log_std > np.median(estimates.log_std)
    error = ratio * estimates.log_std
    assert error[wide].mean() > 1.5 * error[~wide].mean()


def test_well_known_crystals():
    for formula, cell_volume, atoms in (
        ({"Na": 1, "Cl": 1}, 5.64**3, 8),
        ({"Si": 1}, 5.431**3, 8),
        ({"Mg": 1, "O": 1}, 4.212**3, 8),
        ({"Ca": 1, "Ti": 1, "O": 3}, 5.38 * 5.44 * 7.64, 20),
    ):
        estimate = volume_per_atom(formula)
        deviation = np.log(estimate.mean / (cell_volume / atoms))
        assert abs(deviation) < max(0.12, 3 * estimate.log_std)
        assert estimate.extrapolated == ()


def test_batch_equals_one_by_one_and_formula_units_do_not_matter():
    compositions = [{"Fe": 2, "O": 3}, {"Cs": 1}, {"Ba": 1, "Ti": 1, "O": 3}, {"He": 1, "Na": 2}]
    many = volumes_per_atom(compositions, chunk=3)
    for k, composition in enumerate(compositions):
        one = volume_per_atom(composition)
        assert one.mean == pytest.approx(float(many.mean[k]), rel=1e-12)
        assert one.log_std == pytest.approx(float(many.log_std[k]), rel=1e-12)
        assert one.extrapolated == many.extrapolated[k]
        double = volume_per_atom({key: 2 * amount for key, amount in composition.items()})
        assert double.mean == pytest.approx(one.mean, rel=1e-12)
    assert len(volumes_per_atom([]).mean) == 0


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.integers(1, 103), st.integers(1, 20), min_size=1, max_size=7))
def test_any_composition_gets_a_believable_volume(composition):
    estimate = volume_per_atom(composition)
    assert 1.0 < estimate.mean < 400.0
    assert 0.0 < estimate.log_std < 2.0


def test_elements_never_seen_are_named_and_less_certain():
    radium, barium = volume_per_atom({"Ra": 1, "O": 1}), volume_per_atom({"Ba": 1, "O": 1})
    assert radium.extrapolated == ("Ra",)
    assert barium.extrapolated == ()
    assert radium.log_std > barium.log_std
    # Radium is the larger of the two.
    assert radium.mean > barium.mean
    assert volume_per_atom({"Ne": 1}).extrapolated == ("Ne",)


def test_surrogates_are_relatives():
    seen = volume_network().seen
    assert surrogate_element(88, seen) == 56  # Ra from Ba
    assert surrogate_element(87, seen) == 55  # Fr from Cs
    assert surrogate_element(84, seen) == 52  # Po from Te
    assert surrogate_element(95, seen) == 94  # Am from Pu


def test_hidden_elements_are_estimated_better_than_by_their_surrogate_alone(val):
    numbers, truth = val
    network = volume_network()
    with_law, without_law = [], []
    for z in (11, 20, 26, 34, 47, 60):
        seen = network.seen.copy()
        seen[z] = False
        chosen = [k for k, atoms in enumerate(numbers) if z in atoms and network.seen[atoms].all()]
        blind = type(network)(network.members, seen, network.radius_law, network.calibration)
        flat = type(network)(network.members, seen, (1.0, 0.0), network.calibration)
        matrices = composition_matrix([numbers[k] for k in chosen])
        with_law.append(np.abs(np.log(blind.estimate(*matrices).mean) - truth[chosen]).mean())
        without_law.append(np.abs(np.log(flat.estimate(*matrices).mean) - truth[chosen]).mean())
    assert np.mean(with_law) < 0.8 * np.mean(without_law)


def test_the_table_is_small():
    size = len(resources.files("nucleate.physics").joinpath("tables", "volume.npz").read_bytes())
    assert size < 300_000
