"""Intervals against scipy, and their coverage where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from nucleate.evaluation.statistics import (
    bootstrap_ci,
    bootstrap_indices,
    mean_metric,
    normal_interval,
    proportion,
    wilson_interval,
)


@pytest.mark.parametrize(("successes", "n"), [(0, 7), (1, 7), (37, 100), (9_685, 10_000), (12, 12)])
def test_wilson_interval_is_scipys(successes: int, n: int) -> None:
    expected = scipy.stats.binomtest(successes, n).proportion_ci(method="wilson")
    found = wilson_interval(successes, n)
    assert found == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_interval_covers_where_the_normal_one_does_not() -> None:
    # Exact coverage by summing the binomial over all outcomes.
    n, p = 20, 0.96
    weights = scipy.stats.binom.pmf(np.arange(n + 1), n, p)
    ends = [wilson_interval(k, n) or (0, 0) for k in range(n + 1)]
    coverage = sum(w for w, (low, high) in zip(weights, ends) if low <= p <= high)
    shares = np.arange(n + 1) / n
    half = 1.96 * np.sqrt(shares * (1 - shares) / n)
    naive = sum(w for w, s, h in zip(weights, shares, half) if s - h <= p <= s + h)
    assert coverage > 0.93
    assert naive < 0.6


@pytest.mark.parametrize("statistic", [np.mean, np.median, np.std])
def test_bootstrap_interval_is_scipys(statistic: object, rng: np.random.Generator) -> None:
    sample = rng.lognormal(size=200)
    expected = scipy.stats.bootstrap(
        (sample,), statistic, n_resamples=8000, method="percentile", rng=np.random.default_rng(5)
    )
    found = bootstrap_ci(sample, statistic, resamples=8000)  # type: ignore[arg-type]
    assert found is not None
    width = expected.confidence_interval.high - expected.confidence_interval.low
    assert found[0] == pytest.approx(expected.confidence_interval.low, abs=0.04 * width)
    assert found[1] == pytest.approx(expected.confidence_interval.high, abs=0.04 * width)


def test_bootstrap_in_blocks_is_the_bootstrap(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    sample = rng.normal(size=50)
    whole = bootstrap_ci(sample, seed=3)
    monkeypatch.setattr("nucleate.evaluation.statistics._BLOCK", 500)
    assert bootstrap_ci(sample, seed=3) == pytest.approx(whole, abs=1e-12)
    assert bootstrap_ci(sample, seed=4) != whole
    assert bootstrap_ci([1.0]) is None


def test_bootstrap_of_a_ratio_leaves_out_empty_classes() -> None:
    flags = np.array([1.0] + [0.0] * 9)
    values = np.arange(10.0)

    def ratio(indices: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return (flags[indices] * values[indices]).sum(-1) / flags[indices].sum(-1)

    assert bootstrap_indices(ratio, 10) == (0.0, 0.0)


def test_metrics_leave_out_what_was_not_measured_and_warn_of_few() -> None:
    share = proportion("validity", [True, False, None, True], protocol="p")
    assert (share.value, share.n) == (pytest.approx(2 / 3), 3)
    assert "only 3 crystals" in share.note
    mean = mean_metric("energy", [1.0, None, float("nan"), 3.0], protocol="p", unit="eV")
    assert (mean.value, mean.n) == (2.0, 2)
    empty = mean_metric("energy", [None], protocol="p")
    assert (empty.value, empty.ci95, empty.note) == (None, None, "no crystals")
    assert proportion("validity", [True, False] * 100, protocol="p").note == ""


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (5, 5), (0, 300), (300, 300)])
def test_a_share_of_nobody_or_everybody_is_not_certain(hits: int, n: int) -> None:
    metric = proportion("valid", np.arange(n) < hits, protocol="p")
    scipys = scipy.stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert metric.ci95 == pytest.approx((scipys.low, scipys.high), abs=1e-12)
    # The rule of three and the exact interval say the same within a factor of 1.5; the bootstrap says 0.
    exact = scipy.stats.binomtest(hits, n).proportion_ci(method="exact")
    assert metric.ci95 is not None
    width = metric.ci95[1] - metric.ci95[0]
    assert width == pytest.approx(exact.high - exact.low, rel=0.5)
    assert bootstrap_ci(np.arange(n) < hits) is None


def test_a_mean_share_that_all_crystals_have_is_not_certain() -> None:
    found = mean_metric("rare", np.zeros(6), protocol="p", unit="share")
    assert found.ci95 == wilson_interval(0, 6)


def test_values_that_are_all_equal_give_no_interval() -> None:
    found = mean_metric("x", np.full(600, 0.1), protocol="p", unit="Å")
    assert found.ci95 is None
    assert found.note == "all 600 values are equal: no interval"
    assert bootstrap_ci(0.1 + np.array([0, 1e-16, 0])) is None  # nor does rounding
    assert normal_interval(3.0, 0.0) is None
    # A control: one other value, and there is an interval.
    some = mean_metric("x", [*np.full(599, 0.1), 0.2], protocol="p", unit="Å")
    assert some.ci95 is not None
    assert some.note == ""
