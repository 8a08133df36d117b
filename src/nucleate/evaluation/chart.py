"""One drawing as numbers: the same for PNG and for the interactive page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["intervals", "mirrored", "histogram", "lines"]

OURS, HELD_OUT = "crystals", "held-out reference"


@dataclass(frozen=True)
class Series:
    """One set of points.

    Attributes:
        name: stands in the legend.
        x: places; for ``intervals`` positions of the labels, for ``histogram`` edges (one more than ``y``).
        y: values.
        low: lower ends of the intervals, empty without.
        high: upper ends of the intervals.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class Chart:
    """One drawing.

    Attributes:
        name: of its files.
        title: what it shows.
        subtitle: how to read it, with sample sizes.
        kind: ``intervals`` (labels against values with intervals), ``mirrored`` (bars up and down),
            ``histogram`` or ``lines``.
        x_label: under the horizontal axis.
        y_label: beside the vertical axis.
        series: what is drawn, ours first.
        labels: text at each position of the vertical axis of ``intervals``.
        logarithmic: whether the horizontal axis is.
    """

    name: str
    title: str
    subtitle: str
    kind: Kind
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    labels: tuple[str, ...] = ()
    logarithmic: bool = False


def share_points(
    name: str, places: Sequence[float], values: Sequence[tuple[float | None, tuple[float, float] | None]]
) -> Series:
    """Shares at their places in per cent; those without a value are left out."""
    known = [(p, v, ends or (v, v)) for p, (v, ends) in zip(places, values) if v is not None]
    return Series(
        name,
        tuple(p for p, _, _ in known),
        tuple(100 * v for _, v, _ in known),
        tuple(100 * ends[0] for _, _, ends in known),
        tuple(100 * ends[1] for _, _, ends in known),
    )
