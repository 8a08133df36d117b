"""Sample efficiency of a set: how many different good crystals the first n samples hold, and per second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from nucleate.evaluation.sample_efficiency import distinct_hits

UNIQUE_COLUMN, COPY_COLUMN = "unique", "duplicate_of"
"""Whether no earlier crystal equals it, and the row of the one that does."""

CURVES: dict[str, tuple[str, ...]] = {
    "valid": ("structurally_valid", "compositionally_valid"),
    "unique": (),
    "unique_novel": ("novel",),
    "valid_unique_novel": ("structurally_valid", "compositionally_valid", "novel"),
    "stable_unique_novel": ("energy_above_hull", "novel"),
    "metastable_unique_novel": ("energy_above_hull", "novel"),
}
"""Columns that must all be true for a crystal to count. All curves but ``valid`` count equal crystals once."""

HULL_LIMITS = {"stable_unique_novel": 0.0, "metastable_unique_novel": 0.1}
"""Largest energy above the hull (eV/atom) of a crystal that counts, for the curves that look at it."""

_POINTS = 40


def sample_efficiency(table: pa.Table, seconds: float | None) -> dict[str, Any]:
    """Expected number of hits among the first n of the samples in random order, for up to 40 values of n.

    A curve that bends says that more samples bring ever less: crystals that equal an earlier one do not count
    again. The expectation over all orders is exact (rarefaction), so that the curve does not depend on the order
    of the input.

    Args:
        table: one row per crystal with the columns of the families that ran.
        seconds: time the samples took to make; None where unknown.

    Returns:
        ``samples`` (n of each point), ``curves`` (hits by name; a curve is absent where a family it needs did
        not run) and ``seconds_per_sample``.
    """
    total = table.num_rows
    sizes = np.unique(np.rint(np.geomspace(1, total, min(total, _POINTS))).astype(int)).tolist()
    curves = {}
    for name, flags in CURVES.items():
        needed = flags if name == "valid" else (UNIQUE_COLUMN, COPY_COLUMN, *flags)
        if set(needed) <= set(table.column_names):
            keys: Sequence[Any] = range(total) if name == "valid" else representatives(table)
            hits = np.array([key is not None for key in keys], dtype=bool)
            for flag in flags:
                values = table.column(flag).to_pylist()
                if flag == "energy_above_hull":
                    limit = HULL_LIMITS[name] + 1e-9
                    hits &= np.array([value is not None and value <= limit for value in values], dtype=bool)
                else:
                    hits &= np.array([value is True for value in values], dtype=bool)
            found = distinct_hits(keys, hits, sizes)
            curves[name] = [round(float(value), 6) for value in found]
    per_sample = None if seconds is None or not total else seconds / total
    return {"samples": sizes, "curves": curves, "seconds_per_sample": per_sample}


def representatives(table: pa.Table) -> list[int | None]:
    """Row of the crystal that stands for each; None for crystals that were compared with no other."""
    unique = table.column(UNIQUE_COLUMN).to_pylist()
    copies = table.column(COPY_COLUMN).to_pylist()
    return [row if alone else copy for row, (alone, copy) in enumerate(zip(unique, copies))]
