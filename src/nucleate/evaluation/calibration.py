"""Calibration of predicted uncertainty: whether an error bar of a predictor means what it says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nucleate.errors import InvalidStructureError
from nucleate.shapes import Float

_LEVELS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True, eq=False)
class Calibration:
    """How predicted normal distributions N(mean, deviation²) agree with what was observed.

    Attributes:
        n: predictions.
        levels: probability p of the central interval.
        observed: share of the observations inside it; equal to ``levels`` for a calibrated predictor.
        miscalibration_area: ``integral |observed - p| dp``, 0 (calibrated) to 1/2.
        bin_deviation: root mean square of the predicted deviation in each bin of equal size, ascending.
        bin_error: root mean square error in each bin.
        ence: mean over the bins of ``|bin_deviation - bin_error| / bin_deviation``.
        ence_floor: what a perfectly calibrated predictor has at this bin size, ``1 / sqrt(pi n_bin)``.
        sharpness: root mean square of the predicted deviations.
        crps: mean continuous ranked probability score, in the unit of the values.
        log_score: mean of ``- ln p(observed)``, nats.
    """

    n: int
    levels: Float[np.ndarray, "levels"]
    observed: Float[np.ndarray, "levels"]
    miscalibration_area: float
    bin_deviation: Float[np.ndarray, "bins"]
    bin_error: Float[np.ndarray, "bins"]
    ence: float
    ence_floor: float
    sharpness: float
    crps: float
    log_score: float


def calibration(
    predicted: Float[np.ndarray, "n"],
    deviation: Float[np.ndarray, "n"],
    *,
    observed: Float[np.ndarray, "n"],
    num_bins: int = 10,
) -> Calibration:
    """How well predicted means with standard deviations are calibrated.

    With ``z = (y - mu) / sigma``, the central interval of probability p holds ``|z| <= Phi^-1((1 + p)/2)``:

        observed(p) = |{i : 2 Phi(|z_i|) - 1 <= p}| / n
        ENCE = (1/B) sum_b |RMV_b - RMSE_b| / RMV_b        (Levi et al., Sensors 22, 5540, 2022)
        CRPS = sigma [z (2 Phi(z) - 1) + 2 phi(z) - 1/sqrt(pi)]   (Gneiting and Raftery, JASA 102, 359, 2007)

    The area is that of Tran et al. (Mach. Learn.: Sci. Technol. 1, 025006, 2020), on the confidence curve. ENCE
    depends on the number of bins and is not 0 for a calibrated predictor (Pernot, APL Mach. Learn. 1, 046121,
    2023): compare it with ``ence_floor``.

    Args:
        predicted: means mu.
        deviation: standard deviations sigma, in the unit of the means.
        observed: values y.
        num_bins: bins of equal size for ENCE.

    Raises:
        InvalidStructureError: fewer values than bins, a deviation that is not positive, or one that is not finite.
    """
    n = len(predicted)
    if n < num_bins or num_bins < 1:
        raise InvalidStructureError(f"calibration in {num_bins} bins needs at least as many values, got {n}")
    for name, values in (("means", predicted), ("deviations", deviation), ("observations", observed)):
        if not np.isfinite(values).all():
            raise InvalidStructureError(
                f"{int((~np.isfinite(values)).sum())} of the {n} {name} are not finite numbers; leave them out"
            )
    if not (deviation > 0).all():
        raise InvalidStructureError(
            f"{int((deviation <= 0).sum())} of {n} deviations are not positive, the smallest is {deviation.min():g}"
        )
    from scipy.special import ndtr  # noqa: PLC0415  loads late

    error = observed - predicted
    z = error / deviation
    inside = np.sort(2 * ndtr(np.abs(z)) - 1)
    curve = np.searchsorted(inside, _LEVELS, side="right") / n
    order = np.argsort(deviation, kind="stable")
    bins = np.array_split(order, num_bins)
    bin_deviation = np.array([np.sqrt((deviation[b] ** 2).mean()) for b in bins])
    bin_error = np.array([np.sqrt((error[b] ** 2).mean()) for b in bins])
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    return Calibration(
        n=n,
        levels=_LEVELS,
        observed=curve,
        miscalibration_area=_area(inside),
        bin_deviation=bin_deviation,
        bin_error=bin_error,
        ence=float((np.abs(bin_deviation - bin_error) / bin_deviation).mean()),
        ence_floor=float(1 / np.sqrt(np.pi * n / num_bins)),
        sharpness=float(np.sqrt((deviation**2).mean())),
        crps=float((deviation * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / np.sqrt(np.pi))).mean()),
        log_score=float((0.5 * z**2 + np.log(deviation) + 0.5 * np.log(2 * np.pi)).mean()),
    )


def _area(inside: Float[np.ndarray, "n"]) -> float:
    """``integral_0^1 |F(p) - p| dp`` for the empirical distribution function of ascending values, exactly."""
    n = len(inside)
    ends = np.concatenate([[0.0], inside, [1.0]])
    low, high, share = ends[:-1], ends[1:], np.arange(n + 1) / n
    # Of |share - p| from low to high; the sign changes inside where share lies between them.
    before, after = share - low, share - high
    crossing = (before > 0) & (after < 0)
    plain = np.abs(before**2 - after**2) / 2
    return float(np.where(crossing, (before**2 + after**2) / 2, plain).sum())


def scale_deviations(
    predicted: Float[np.ndarray, "n"], deviation: Float[np.ndarray, "n"], *, observed: Float[np.ndarray, "n"]
) -> float:
    """The factor on all deviations that makes a normal predictor most likely, ``sqrt(mean(z²))``.

    Fitted on validation data, it is the simplest recalibration (Levi et al. 2022).
    """
    return float(np.sqrt((((observed - predicted) / deviation) ** 2).mean()))
