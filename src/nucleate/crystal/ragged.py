"""Ragged rows laid end to end: where each entry belongs, and minima by row."""

from __future__ import annotations

import numpy as np

from nucleate.shapes import Float, Int


def segment_positions(
    counts: Int[np.ndarray, "rows"],
) -> tuple[Int[np.ndarray, "entries"], Int[np.ndarray, "entries"]]:
    """(row of each entry, its place within the row) for rows of the given lengths laid end to end."""
    row = np.repeat(np.arange(len(counts)), counts)
    starts = np.cumsum(counts) - counts
    return row, np.arange(len(row)) - starts[row]


def segment_argmin(
    values: Float[np.ndarray, "entries"], counts: Int[np.ndarray, "rows"]
) -> Int[np.ndarray, "rows"]:
    """Index of the first smallest entry of each row; every row has at least one entry."""
    starts = np.cumsum(counts) - counts
    smallest = np.minimum.reduceat(values, starts)
    matches = np.flatnonzero(values == np.repeat(smallest, counts))
    return matches[np.searchsorted(matches, starts)]
