"""Properties that were asked for, against what a predictor of the user's says of the crystals that came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from nucleate.errors import ConfigError
from nucleate.evaluation.candidate_store import PART_SIZE, CandidateStore
from nucleate.evaluation.column import Column
from nucleate.evaluation.conditional import (
    Predictor,
    TargetErrors,
    base_rate,
    predicted_property,
    range_errors,
    target_errors,
    target_metrics,
)
from nucleate.evaluation.metric import Metric
from nucleate.evaluation.predictor_quality import Predictions, predictor_metrics
from nucleate.evaluation.statistics import mean_metric

FAMILY = "properties"
GIVEN = "given."


@dataclass(frozen=True)
class PropertyTarget:
    """A property, what predicts it, and what was asked.

    With ``low`` or ``high`` the value should lie between them, with ``target`` near that number, else near the
    number that came along with each crystal as ``NAME_asked``. Where nothing was asked there is only the mean.

    Where crystals state the property itself (a column ``NAME`` of the set, a property of the reference) the predictor
    is judged too: its error and, with ``uncertainty``, whether its error bars mean what they say.

    Attributes:
        name: of the property: ``band_gap``.
        predictor: crystals to one number each, NaN where it cannot say.
        unit: of the property.
        tolerance: how far from a target a hit may be.
        target: number asked of all crystals.
        low: smallest value asked for.
        high: largest value asked for.
        predicted_by: name of the predictor, for the protocol.
        uncertainty: crystals to the standard deviation of each prediction, NaN where unknown; None for a predictor
            without error bars.
    """

    name: str
    predictor: Predictor
    unit: str = ""
    tolerance: float | None = None
    target: float | None = None
    low: float | None = None
    high: float | None = None
    predicted_by: str = "the given predictor"
    uncertainty: Predictor | None = None

    def __post_init__(self) -> None:
        if self.target is not None and (self.low is not None or self.high is not None):
            raise ConfigError(f"{self.name}: ask for a target or for a range, not for both")
        if self.target is not None and self.tolerance is None:
            raise ConfigError(f"{self.name}: a target needs a tolerance within which it is hit")

    @property
    def is_range(self) -> bool:
        """Whether the value should lie between two ends."""
        return self.low is not None or self.high is not None

    @property
    def limits(self) -> tuple[float, float]:
        """The two ends, infinite where not given."""
        low = -np.inf if self.low is None else self.low
        return low, np.inf if self.high is None else self.high


@dataclass(frozen=True)
class PropertyScore:
    """What was found of one property.

    Attributes:
        columns: meaning of the columns.
        values: the columns, one value per crystal.
        metrics: hit rate, mean absolute error and bias, or the mean where nothing was asked; then how good the
            predictor is, where values are stated.
    """

    columns: tuple[Column, ...]
    values: dict[str, pa.Array]
    metrics: tuple[Metric, ...]


def score_property(
    asked: PropertyTarget,
    candidates: CandidateStore,
    table: pa.Table,
    *,
    held_out: CandidateStore | None,
    seed: int,
    resamples: int,
) -> PropertyScore:
    """The property of every crystal and how near it is to what was asked.

    Args:
        asked: property, predictor and target.
        candidates: the crystals, streamed.
        table: their rows, with ``given.NAME_asked``.
        held_out: held-out sample of the reference: how often crystals nobody asked for anything are hits.
        seed: of the bootstrap.
        resamples: bootstrap samples.

    Raises:
        ConfigError: targets came along, but no tolerance is given.
    """
    values = _predicted(asked.predictor, candidates)
    theirs = np.empty(0) if held_out is None else _predicted(asked.predictor, held_out)
    name = asked.name
    columns = [Column(f"{name}_predicted", pa.float64(), f"{name} by {asked.predicted_by}.", asked.unit)]
    found = {f"{name}_predicted": pa.array(values, from_pandas=True)}
    deviations = None if asked.uncertainty is None else _predicted(asked.uncertainty, candidates)
    if deviations is not None:
        words = f"Standard deviation of {name} by {asked.predicted_by}."
        columns.append(Column(f"{name}_deviation", pa.float64(), words, asked.unit))
        found[f"{name}_deviation"] = pa.array(deviations, from_pandas=True)
    quality = predictor_metrics(
        name,
        Predictions.of(values, _stated(name, table), deviations),
        _of_held_out(asked, theirs, held_out),
        unit=asked.unit,
        predicted_by=asked.predicted_by,
        seed=seed,
        resamples=resamples,
    )
    errors, protocol, chance = _errors(asked, values, table, theirs)
    if errors is None:
        mean = mean_metric(
            f"{name}_mean",
            values,
            protocol=f"mean of {name} by {asked.predicted_by}; crystals without a value are left out",
            unit=asked.unit,
            seed=seed,
            resamples=resamples,
            column=f"{name}_predicted",
        )
        known = theirs[~np.isnan(theirs)]
        if len(known):
            mean = replace(mean, reference=float(known.mean()), reference_n=len(known))
        return PropertyScore(tuple(columns), found, (mean, *quality))
    columns += [
        Column(f"{name}_error", pa.float64(), "Value minus what was asked, 0 inside a range.", asked.unit),
        Column(f"{name}_hit", pa.bool_(), "Whether it is within the tolerance or the range."),
    ]
    found[f"{name}_error"] = pa.array(errors.error, from_pandas=True)
    found[f"{name}_hit"] = pa.array(errors.hit)
    metrics = target_metrics(
        name, errors, protocol=protocol, unit=asked.unit, base_rate=chance, seed=seed, resamples=resamples
    )
    metrics[0] = replace(metrics[0], reference_n=int((~np.isnan(theirs)).sum()))
    return PropertyScore(tuple(columns), found, (*metrics, *quality))


def _predicted(predictor: Predictor, candidates: CandidateStore) -> np.ndarray:
    blocks = [
        predicted_property(predictor, [c.crystal for c in candidates.slice(first, PART_SIZE)])
        for first in range(0, len(candidates), PART_SIZE)
    ]
    return np.concatenate(blocks) if blocks else np.empty(0)


def _stated(name: str, table: pa.Table) -> np.ndarray:
    """The values of a property that came along with the crystals, NaN where none did."""
    if GIVEN + name not in table.column_names:
        return np.full(table.num_rows, np.nan)
    return np.array([_number(value) for value in table.column(GIVEN + name).to_pylist()])


def _of_held_out(asked: PropertyTarget, values: np.ndarray, held_out: CandidateStore | None) -> Predictions:
    if held_out is None:
        return Predictions(np.empty(0), np.empty(0), None)
    stated = _stated(asked.name, held_out.base_table())
    if np.isnan(stated).all():
        return Predictions(np.empty(0), np.empty(0), None)
    deviations = None if asked.uncertainty is None else _predicted(asked.uncertainty, held_out)
    return Predictions.of(values, stated, deviations)


def _errors(
    asked: PropertyTarget, values: np.ndarray, table: pa.Table, theirs: np.ndarray
) -> tuple[TargetErrors | None, str, float | None]:
    """Errors, protocol and rate of chance hits; no errors where nothing was asked."""
    if asked.is_range:
        low, high = asked.limits
        protocol = f"{asked.name} by {asked.predicted_by} between {low:g} and {high:g} {asked.unit}".strip()
        return range_errors(values, low, high), protocol, base_rate(theirs, low=low, high=high)
    targets = _targets(asked, table)
    if targets is None:
        return None, "", None
    if asked.tolerance is None:
        raise ConfigError(
            f"{asked.name} was asked for ({asked.name}_asked came along): say with tolerance what counts as a hit"
        )
    protocol = (
        f"{asked.name} by {asked.predicted_by} within {asked.tolerance:g} {asked.unit} of what was asked"
    )
    known = targets[~np.isnan(targets)]
    chance = base_rate(theirs, targets=known, tolerance=asked.tolerance)
    return target_errors(values, targets, tolerance=asked.tolerance), protocol, chance


def _targets(asked: PropertyTarget, table: pa.Table) -> np.ndarray | None:
    if asked.target is not None:
        return np.full(table.num_rows, asked.target)
    column = f"{GIVEN}{asked.name}_asked"
    if column not in table.column_names:
        return None
    values = [_number(value) for value in table.column(column).to_pylist()]
    return np.array(values) if not all(np.isnan(values)) else None


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return float("nan")


def score_properties(
    asked: Sequence[PropertyTarget],
    candidates: CandidateStore,
    table: pa.Table,
    *,
    held_out: CandidateStore | None,
    seed: int,
    resamples: int,
) -> tuple[pa.Table, list[Column], list[Metric]]:
    """The table with the columns of all properties, what they mean, and the metrics."""
    columns: list[Column] = []
    metrics: list[Metric] = []
    for one in asked:
        found = score_property(one, candidates, table, held_out=held_out, seed=seed, resamples=resamples)
        for name, values in found.values.items():
            table = table.append_column(name, values)
        columns += found.columns
        metrics += found.metrics
    return table, columns, metrics
