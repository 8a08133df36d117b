"""How well what was asked for is what came: property targets, ranges, formulas, elements, counts of atoms.

Everything takes arrays; the predicted values come from a calculation, from a column that came along, or from any
callable of the user's (:func:`predicted_property`). No predictor is built in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any

import numpy as np

from nucleate.crystal import Crystal
from nucleate.crystal.species import ATOMIC_NUMBER_OF
from nucleate.errors import ConfigError, InvalidStructureError
from nucleate.evaluation.metric import Metric
from nucleate.evaluation.statistics import mean_metric, proportion
from nucleate.shapes import Bool, Float

Predictor = Callable[[Sequence[Crystal]], Sequence[float] | np.ndarray]
"""Crystals to one number each, NaN where it cannot say."""


def predicted_property(
    predictor: Predictor, crystals: Sequence[Crystal | None], *, batch_size: int = 256
) -> Float[np.ndarray, "crystals"]:
    """What a predictor says of each crystal, NaN for those that are None.

    Args:
        predictor: called with lists of at most ``batch_size`` crystals.
        crystals: None where a crystal could not be read or encoded.
        batch_size: crystals per call.

    Raises:
        InvalidStructureError: the predictor returned another number of values than it was given crystals.
    """
    values = np.full(len(crystals), np.nan)
    known = [(i, crystal) for i, crystal in enumerate(crystals) if crystal is not None]
    for start in range(0, len(known), batch_size):
        rows = [i for i, _ in known[start : start + batch_size]]
        batch = [crystal for _, crystal in known[start : start + batch_size]]
        found = np.asarray(predictor(batch), dtype=np.float64).reshape(-1)
        if len(found) != len(rows):
            raise InvalidStructureError(
                f"the predictor was given {len(rows)} crystals and returned {len(found)} values"
            )
        values[rows] = found
    return values


@dataclass(frozen=True, eq=False)
class TargetErrors:
    """What was asked and what came, crystal by crystal.

    Attributes:
        error: value minus target; 0 inside an asked range, else the signed distance to its nearer end; NaN where
            the value is not known.
        hit: whether the value lies inside the tolerance or the range; False where it is not known.
    """

    error: Float[np.ndarray, "crystals"]
    hit: Bool[np.ndarray, "crystals"]


def target_errors(
    values: Float[np.ndarray, "crystals"], targets: Float[np.ndarray, "crystals"], *, tolerance: float
) -> TargetErrors:
    """Errors and hits of values that were asked to be ``targets``.

    Raises:
        ConfigError: the tolerance is not positive.
    """
    if not tolerance > 0:
        raise ConfigError(f"a hit needs a tolerance above 0, got {tolerance}")
    error = values - targets
    return TargetErrors(error, np.abs(error) <= tolerance)


def range_errors(
    values: Float[np.ndarray, "crystals"],
    low: Float[np.ndarray, "crystals"] | float = -np.inf,
    high: Float[np.ndarray, "crystals"] | float = np.inf,
) -> TargetErrors:
    """Errors and hits of values that were asked to lie between ``low`` and ``high``, ends included.

    Raises:
        ConfigError: a range is empty.
    """
    low, high = np.broadcast_to(low, values.shape), np.broadcast_to(high, values.shape)
    if (low > high).any():
        i = int((low > high).argmax())
        raise ConfigError(f"the range {low[i]:g} to {high[i]:g} of crystal {i} is empty")
    inside = (values >= low) & (values <= high)
    error = np.where(values < low, values - low, np.where(values > high, values - high, 0.0))
    return TargetErrors(np.where(np.isnan(values), np.nan, error), inside)


def target_metrics(
    name: str,
    errors: TargetErrors,
    *,
    protocol: str,
    unit: str = "",
    base_rate: float | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> list[Metric]:
    """``{name}_hit_rate``, ``{name}_mae`` and ``{name}_bias`` of asked-for values.

    A crystal whose value is not known is a miss in the hit rate and absent from the other two, whose ``n`` says
    so.

    Args:
        name: of the property.
        errors: from :func:`target_errors` or :func:`range_errors`.
        protocol: what predicted the values, and the tolerance or range.
        unit: unit of the property.
        base_rate: hit rate of crystals that were not asked for anything (``base_rate``), the reference value.
        seed: of the bootstrap.
        resamples: bootstrap samples.
    """
    unknown = int(np.isnan(errors.error).sum())
    note = f"{unknown:,} crystals without a value count as missed" if unknown else ""
    hits = proportion(
        f"{name}_hit_rate", errors.hit.tolist(), protocol=protocol, note=note, column=f"{name}_hit"
    )
    hits = Metric(**{**vars(hits), "reference": base_rate})
    shared: dict[str, Any] = {"protocol": protocol, "unit": unit, "seed": seed, "resamples": resamples}
    return [
        hits,
        mean_metric(f"{name}_mae", np.abs(errors.error), better="lower", **shared),
        mean_metric(f"{name}_bias", errors.error, **shared),
    ]


def base_rate(
    reference: Float[np.ndarray, "reference"],
    *,
    targets: Float[np.ndarray, "crystals"] | None = None,
    tolerance: float = np.nan,
    low: float = -np.inf,
    high: float = np.inf,
) -> float | None:
    """Chance that a crystal of the reference, drawn without a condition, would have been a hit.

    Mean over the targets of the share of the reference within ``tolerance`` of each, or the share inside a range;
    None for a reference without values. A conditional generator is worth what it has above this.
    """
    known = np.sort(reference[~np.isnan(reference)])
    if not len(known):
        return None
    if targets is None:
        return float(((known >= low) & (known <= high)).mean())
    inside = np.searchsorted(known, targets + tolerance, side="right") - np.searchsorted(
        known, targets - tolerance
    )
    return float(inside.mean() / len(known))


# ---- conditions on the composition -------------------------------------------------------------------------


def reduced_formula(text: str) -> dict[int, int]:
    """Atoms of each element in the smallest whole formula unit of ``SrTiO3``, by atomic number.

    Raises:
        ConfigError: not a formula of elements with whole amounts.
    """
    counts: dict[int, int] = {}
    compact = text.replace(" ", "")
    parts = re.findall(r"([A-Z][a-z]?)(\d*)", compact)
    if not parts or "".join(symbol + amount for symbol, amount in parts) != compact:
        raise ConfigError(f"{text!r} is not a formula such as SrTiO3")
    for symbol, amount in parts:
        if symbol not in ATOMIC_NUMBER_OF or amount.startswith("0"):
            raise ConfigError(f"{text!r} is not a formula such as SrTiO3: {symbol}{amount}")
        z = ATOMIC_NUMBER_OF[symbol]
        counts[z] = counts.get(z, 0) + int(amount or 1)
    divisor = gcd(*counts.values())
    return {z: n // divisor for z, n in sorted(counts.items())}


def chemical_system(text: str) -> frozenset[int]:
    """Elements of ``Sr-Ti-O`` or ``Sr,Ti,O``, by atomic number.

    Raises:
        ConfigError: something that is not an element.
    """
    symbols = [part for part in re.split(r"[-,\s]+", text.strip()) if part]
    unknown = [symbol for symbol in symbols if symbol not in ATOMIC_NUMBER_OF]
    if unknown or not symbols:
        raise ConfigError(
            f"{text!r} is not a chemical system such as Sr-Ti-O: {', '.join(unknown) or 'empty'}"
        )
    return frozenset(ATOMIC_NUMBER_OF[symbol] for symbol in symbols)


def composition_obeys(crystal: Crystal | None, given: Mapping[str, Any]) -> dict[str, bool | None]:
    """Whether a crystal has the composition that was asked for, one answer per kind of condition.

    Reads ``formula_asked`` (equal after reduction), ``chemical_system_asked`` (exactly these elements),
    ``elements_asked`` (no other elements), ``num_atoms_asked`` (per primitive cell; ``8`` or ``4-20``). None where
    nothing was asked; False for a crystal that is None, because it did not come.

    Raises:
        ConfigError: a condition that cannot be read.
    """
    answers: dict[str, bool | None] = {}
    for name, check in _CHECKS.items():
        asked = given.get(f"{name}_asked")
        if asked is None or asked == "" or (isinstance(asked, float) and np.isnan(asked)):
            answers[name] = None
        else:
            wanted = check(str(asked))
            answers[name] = crystal is not None and wanted(crystal)
    return answers


def _formula(asked: str) -> Callable[[Crystal], bool]:
    wanted = reduced_formula(asked)
    return lambda crystal: reduced_formula(crystal.formula) == wanted


def _system(asked: str) -> Callable[[Crystal], bool]:
    wanted = chemical_system(asked)
    return lambda crystal: crystal.composition.keys() == wanted


def _elements(asked: str) -> Callable[[Crystal], bool]:
    wanted = chemical_system(asked)
    return lambda crystal: crystal.composition.keys() <= wanted


def _num_atoms(asked: str) -> Callable[[Crystal], bool]:
    match = re.fullmatch(r"(\d+)(?:\.0)?(?:\s*-\s*(\d+))?", asked.strip())
    if match is None:
        raise ConfigError(f"num_atoms_asked is a number or a range such as 4-20, got {asked!r}")
    low, high = int(match[1]), int(match[2] or match[1])
    return lambda crystal: low <= crystal.num_atoms_primitive <= high


_CHECKS: dict[str, Callable[[str], Callable[[Crystal], bool]]] = {
    "formula": _formula,
    "chemical_system": _system,
    "elements": _elements,
    "num_atoms": _num_atoms,
}
