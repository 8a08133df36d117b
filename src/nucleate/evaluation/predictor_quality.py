"""How good the predictor is that judges a property: its errors and error bars where the true value is stated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from nucleate.evaluation.calibration import Calibration, calibration
from nucleate.evaluation.metric import Metric
from nucleate.evaluation.statistics import mean_metric, normal_interval, small_sample_note
from nucleate.shapes import Float

NUM_BINS = 10
RESAMPLES = 100
"""Bootstrap samples behind the interval of a calibration."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a predictor said of the crystals of a set whose value is stated.

    Attributes:
        predicted: the values it gave.
        observed: the values stated.
        deviation: the standard deviations it gave; None where it gives none.
    """

    predicted: Float[np.ndarray, "known"]
    observed: Float[np.ndarray, "known"]
    deviation: Float[np.ndarray, "known"] | None

    @classmethod
    def of(
        cls,
        predicted: Float[np.ndarray, "crystals"],
        observed: Float[np.ndarray, "crystals"],
        deviation: Float[np.ndarray, "crystals"] | None,
    ) -> Predictions:
        """Those crystals of which all three are finite numbers, and the deviation is above 0."""
        known = np.isfinite(predicted) & np.isfinite(observed)
        if deviation is not None:
            known &= np.isfinite(deviation) & (np.nan_to_num(deviation) > 0)
        return cls(predicted[known], observed[known], None if deviation is None else deviation[known])

    def __len__(self) -> int:
        """Number of crystals."""
        return len(self.predicted)

    def calibration(self, rows: np.ndarray | None = None) -> Calibration | None:
        """Calibration over these rows; None without deviations or for fewer than ten crystals."""
        if self.deviation is None or len(self) < NUM_BINS:
            return None
        chosen = np.arange(len(self)) if rows is None else rows
        return calibration(
            self.predicted[chosen],
            self.deviation[chosen],
            observed=self.observed[chosen],
            num_bins=NUM_BINS,
        )


def predictor_metrics(
    name: str,
    ours: Predictions,
    theirs: Predictions,
    *,
    unit: str = "",
    predicted_by: str = "the given predictor",
    seed: int = 0,
    resamples: int = 1000,
) -> list[Metric]:
    """``NAME_predictor_mae``, and with error bars ``NAME_miscalibration`` and ``NAME_ence``.

    Each is of the crystals of the set that state the property (column NAME), beside it that of the held-out sample of
    the reference. Nothing where neither states it.

    Args:
        name: of the property.
        ours: predictions for the set.
        theirs: predictions for the held-out sample.
        unit: of the property.
        predicted_by: name of the predictor.
        seed: of the bootstraps.
        resamples: bootstrap samples of the mean absolute error.
    """
    if not len(ours) and not len(theirs):
        return []
    source = f"{name} by {predicted_by} against the stated {name}"
    mine, beside = (
        mean_metric(
            f"{name}_predictor_mae",
            np.abs(p.predicted - p.observed),
            protocol=f"mean absolute error of {source}; crystals that state none are left out",
            unit=unit,
            better="lower",
            seed=seed,
            resamples=resamples,
        )
        for p in (ours, theirs)
    )
    metrics = [replace(mine, reference=beside.value, reference_n=beside.n, reference_ci95=beside.ci95)]
    if ours.deviation is None and theirs.deviation is None:
        return metrics
    measures: tuple[tuple[str, Callable[[Calibration], float], str], ...] = (
        (
            f"{name}_miscalibration",
            lambda found: found.miscalibration_area,
            "area between the share of stated values inside central intervals and their probability, 0 to 1/2 (Tran "
            "et al. 2020)",
        ),
        (
            f"{name}_ence",
            lambda found: found.ence,
            f"expected normalised calibration error in {NUM_BINS} bins (Levi et al. 2022)",
        ),
    )
    for key, measure, what in measures:
        value, ends, note = _measured(ours, measure, seed)
        reference, reference_ends, _ = _measured(theirs, measure, seed)
        floor = ours.calibration()
        notes = [note, small_sample_note(len(ours))]
        if key.endswith("_ence") and floor is not None:
            notes.insert(0, f"a calibrated predictor has {floor.ence_floor:.3g} at this size")
        metrics.append(
            Metric(
                key,
                value,
                len(ours),
                ends,
                f"{what}; {source}; interval of 1.96 bootstrap standard deviations",
                better="lower",
                reference=reference,
                reference_n=len(theirs),
                reference_ci95=reference_ends,
                note="; ".join(filter(None, notes)),
            )
        )
    return metrics


def _measured(
    found: Predictions, measure: Callable[[Calibration], float], seed: int
) -> tuple[float | None, tuple[float, float] | None, str]:
    whole = found.calibration()
    if whole is None:
        return None, None, f"needs {NUM_BINS} crystals that state the value"
    rng = np.random.default_rng([seed, len(found)])
    drawn = []
    for _ in range(RESAMPLES):
        resampled = found.calibration(rng.integers(0, len(found), len(found)))
        assert resampled is not None
        drawn.append(measure(resampled))
    value = measure(whole)
    return value, normal_interval(value, float(np.std(drawn, ddof=1)), low=0.0), ""
