"""One number about a set of crystals, with its sample size, interval, protocol and ceiling."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Metric:
    """A named number that says how it was obtained.

    Attributes:
        name: key in ``summary.json``: ``structural_validity``, ``w_density``.
        value: the number; None where nothing could be measured (``note`` says why).
        n: number of crystals (or pairs) it is an average over.
        ci95: ends of its 95 % interval; None where it has none.
        protocol: in one sentence everything that must be equal for two values to be comparable: thresholds,
            tolerances, what counts against the generator, what it is measured against, which interval.
        unit: ``share`` (0 to 1), ``g/cm³``, ``eV/atom``, ...; empty for a bare number.
        better: ``higher``, ``lower``, or empty where neither is better.
        reference: the same number for a held-out sample of the reference.
        reference_n: size of that sample.
        reference_ci95: its interval.
        note: what the reader must know: too few crystals, nothing to compare with.
        column: column of the table of crystals that the number is a statistic of; empty where it is not a
            function of one column.
        statistic: that function of the column's values (n,); None for the mean. Comparing two sets needs it
            for the permutation test.
        answers: value by question, where each value answers one (a test structure): two sets are then compared
            pair by pair on the questions both answer. None where the samples of two sets are independent.
        successes: how many of the ``n`` are true, for a share of flags; None for anything else.
    """

    name: str
    value: float | None
    n: int
    ci95: tuple[float, float] | None
    protocol: str
    unit: str = ""
    better: str = ""
    reference: float | None = None
    reference_n: int = 0
    reference_ci95: tuple[float, float] | None = None
    note: str = ""
    column: str = ""
    statistic: Callable[[np.ndarray], float] | None = field(default=None, compare=False, repr=False)
    answers: Mapping[Hashable, float] | None = field(default=None, compare=False, repr=False)
    successes: int | None = None

    def __post_init__(self) -> None:
        if self.better not in ("", "higher", "lower"):
            raise ValueError(f"better is 'higher', 'lower' or empty, got {self.better!r} for {self.name}")

    def to_json(self) -> dict[str, Any]:
        """The metric as it stands in ``summary.json``; NaN and infinities become null."""
        return {
            "value": finite(self.value),
            "n": self.n,
            "ci95": interval(self.ci95),
            "unit": self.unit,
            "better": self.better,
            "protocol": self.protocol,
            "reference": finite(self.reference),
            "reference_n": self.reference_n,
            "reference_ci95": interval(self.reference_ci95),
            "note": self.note,
        }


def not_measured(name: str, why: str, *, unit: str = "", better: str = "") -> Metric:
    """The metric of a quantity that could not be measured, with the reason as its note."""
    return Metric(name, None, 0, None, "not measured", unit=unit, better=better, note=why)


def finite(value: float | None) -> float | None:
    """The number, None where it is missing, NaN or infinite."""
    return None if value is None or not math.isfinite(value) else float(value)


def interval(ends: tuple[float, float] | None) -> list[float] | None:
    """The ends as a list, None where one of them is not a number."""
    if ends is None or not all(math.isfinite(end) for end in ends):
        return None
    return [float(ends[0]), float(ends[1])]
