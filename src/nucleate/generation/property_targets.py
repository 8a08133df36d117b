"""What properties are asked of crystals: values and ranges."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from nucleate.errors import ConditionError
from nucleate.shapes import Bool, Float

Asked: TypeAlias = float | Sequence[float | None]
"""A value, or (lowest, highest) with None for an open end."""

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"


@dataclass(frozen=True)
class PropertyTarget:
    """The values of a property that are asked for, in the unit that the weights read it in.

    Attributes:
        name: of the property.
        low, high: both ends of the range, infinite where it is open; equal where the nearest to one value is asked for.
    """

    name: str
    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.high or self.low == math.inf or self.high == -math.inf:
            raise ConditionError(f"The range of {self.name}, {self.low:g} to {self.high:g}, is empty.")

    @property
    def text(self) -> str:
        """``1.5``, ``1.5..2``, ``1.5..`` or ``..2``, as it is asked for."""
        if self.low == self.high:
            return f"{self.low:g}"
        return "..".join("" if math.isinf(end) else f"{end:g}" for end in (self.low, self.high))

    def off(self, values: Float[np.ndarray, "crystals"]) -> Float[np.ndarray, "crystals"]:
        """How far values are from the range, 0 inside it."""
        return np.maximum(np.maximum(self.low - values, values - self.high), 0.0)

    def to_json(self) -> float | list[float | None]:
        """The value, or both ends."""
        if self.low == self.high:
            return self.low
        return [None if math.isinf(end) else end for end in (self.low, self.high)]


def property_targets(
    asked: Mapping[str, Asked] | Sequence[PropertyTarget],
) -> tuple[PropertyTarget, ...]:
    """Targets of values and ranges by name.

    Raises:
        ConditionError: something else than numbers, or a range is empty.
    """
    if not isinstance(asked, Mapping):
        return tuple(asked)
    targets = []
    for name, wanted in asked.items():
        ends = wanted if isinstance(wanted, Sequence) and not isinstance(wanted, str) else (wanted, wanted)
        try:
            low, high = ends
            target = PropertyTarget(
                name, -math.inf if low is None else float(low), math.inf if high is None else float(high)
            )
        except (TypeError, ValueError) as error:
            raise ConditionError(
                f"{name} is asked for by a number or by (lowest, highest), got {wanted!r}."
            ) from error
        targets.append(target)
    return tuple(targets)


def parse_property(text: str) -> tuple[str, Asked]:
    """Name and value or range of ``band_gap=1.5``, ``band_gap=1..2``, ``band_gap=3..`` or ``energy=..-1``.

    Raises:
        ConditionError: it is none of these.
    """
    match = re.fullmatch(r"\s*([^=\s]+)\s*=\s*(.*?)\s*", text)
    name, wanted = match.groups() if match is not None else ("", "")
    ends = [end.strip() for end in wanted.split("..")]
    if not all(re.fullmatch(rf"(?:{_NUMBER})?", end) for end in ends) or len(ends) > 2 or not any(ends):
        raise ConditionError(
            f"--property takes NAME=VALUE or NAME=LO..HI such as band_gap=1..2 or band_gap=3.., got {text!r}."
        )
    numbers = [float(end) if end else None for end in ends]
    return name, (numbers if len(numbers) == 2 else float(ends[0]))


def parse_properties(texts: Sequence[str]) -> dict[str, Asked]:
    """What is asked of each property, one text each.

    Raises:
        ConditionError: a text is none of ``parse_property``'s, or a property is named twice.
    """
    asked: dict[str, Asked] = {}
    for name, wanted in map(parse_property, texts):
        if name in asked:
            raise ConditionError(f"--property names {name} twice: give both ends at once, as {name}=LO..HI.")
        asked[name] = wanted
    return asked


def first_wanted(
    targets: Sequence[PropertyTarget],
    values: Float[np.ndarray, "candidates properties"],
    spreads: Sequence[float],
) -> tuple[Bool[np.ndarray, "candidates"], int]:
    """(which candidates have everything asked for, the one to keep).

    Kept is the first that has it, which is a sample of the network's own distribution given what is asked; where none
    has, the nearest, the distances of several properties added up in units of their spread in the training data.
    """
    off = np.array([t.off(values[:, k]) / spreads[k] for k, t in enumerate(targets)]).sum(axis=0)
    off = np.nan_to_num(off, nan=np.inf)
    return off == 0, int(off.argmin())
