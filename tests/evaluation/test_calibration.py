"""Calibration of normal predictions against closed forms: errors drawn with a known factor on the deviation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from nucleate.errors import InvalidStructureError
from nucleate.evaluation.calibration import calibration, scale_deviations


def _predictions(rng, factor, n=20_000):
    deviation = rng.gamma(3.0, 0.5, size=n)
    predicted = rng.normal(size=n)
    return predicted, deviation, predicted + factor * deviation * rng.normal(size=n)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_curve_area_and_ence_of_a_known_factor(rng, factor):
    predicted, deviation, observed = _predictions(rng, factor)
    found = calibration(predicted, deviation, observed=observed)

    def true_curve(p):
        return 2 * norm.cdf(norm.ppf((1 + p) / 2) / factor) - 1

    inner = found.levels[1:-1]
    assert np.abs(found.observed[1:-1] - true_curve(inner)).max() < 0.015
    area = quad(lambda p: abs(true_curve(p) - p), 0, 1)[0]
    assert found.miscalibration_area == pytest.approx(area, abs=0.006)
    assert found.ence == pytest.approx(abs(1 - factor), abs=0.02)
    assert found.sharpness == pytest.approx(np.sqrt((deviation**2).mean()))
    assert scale_deviations(predicted, deviation, observed=observed) == pytest.approx(factor, rel=0.02)


def test_scores_are_those_of_the_normal_distribution(rng):
    predicted, deviation, observed = _predictions(rng, 1.3, n=50)
    found = calibration(predicted, deviation, observed=observed)
    assert found.log_score == pytest.approx(-norm.logpdf(observed, predicted, deviation).mean())

    def crps(mu, sigma, y):
        below = quad(lambda x: norm.cdf(x, mu, sigma) ** 2, mu - 12 * sigma, y, limit=200)[0]
        above = quad(lambda x: (1 - norm.cdf(x, mu, sigma)) ** 2, y, mu + 12 * sigma, limit=200)[0]
        return below + above

    assert found.crps == pytest.approx(
        np.mean([crps(*row) for row in zip(predicted, deviation, observed)]), rel=1e-6
    )


def test_floor_of_ence_is_what_a_calibrated_predictor_has(rng):
    drawn = [_predictions(rng, 1.0, n=500) for _ in range(100)]
    found = [calibration(mean, deviation, observed=values) for mean, deviation, values in drawn]
    assert np.mean([f.ence for f in found]) == pytest.approx(found[0].ence_floor, rel=0.1)


def test_area_is_exact_for_few_values():
    # One observation exactly on the mean: F jumps to 1 at p = 0, area 1/2; far away: F stays 0, area 1/2.
    one = np.array([0.0])
    assert calibration(one, one + 1, observed=one, num_bins=1).miscalibration_area == pytest.approx(0.5)
    assert calibration(one, one + 1, observed=one + 50, num_bins=1).miscalibration_area == pytest.approx(0.5)
    # Median of |z|: F is 0 below p = 1/2 and 1 above, area 1/4.
    median = np.array([norm.ppf(0.75)])
    assert calibration(one, one + 1, observed=median, num_bins=1).miscalibration_area == pytest.approx(0.25)


def test_shuffled_errors_are_noticed_by_ence_alone(rng):
    # Negative control: the right deviations on the wrong crystals. The overall spread of z hardly tells.
    predicted, deviation, observed = _predictions(rng, 1.0)
    wrong = rng.permutation(deviation)
    assert calibration(predicted, wrong, observed=observed).ence > 0.3


def test_impossible_input_is_refused():
    one = np.ones(5)
    with pytest.raises(InvalidStructureError, match="not positive"):
        calibration(one, one - 1, observed=one, num_bins=1)
    with pytest.raises(InvalidStructureError, match="not finite"):
        calibration(one, one, observed=one * np.nan, num_bins=1)
    with pytest.raises(InvalidStructureError, match="10 bins"):
        calibration(one, one, observed=one)
