"""What is known about each element: radii, electronegativity, valence, oxidation states; and what is not.

The table is written by ``scripts/build_element_table.py`` (mendeleev, then pymatgen, then a stated filling
rule; every filled value is named by :func:`element_gaps`). Convention for the f block: La to Yb and Ac to No
are block f, Lu and Lr are block d, and all thirty of them count as group 3.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

import numpy as np

from nucleate.crystal.elements import atomic_mass as atomic_mass  # one table of masses and symbols: crystal's
from nucleate.crystal.species import ATOMIC_NUMBER_OF, HYDROGEN_ISOTOPES
from nucleate.crystal.species import element_symbol as element_symbol
from nucleate.errors import InvalidStructureError
from nucleate.shapes import Bool, Float

NUM_ELEMENTS = 103
"""Elements with feature vectors: H to Lr. Symbols and masses, which are crystal's, reach to Og (118)."""

FEATURE_NAMES: tuple[str, ...] = (
    "period",
    "group",
    "block_s",
    "block_p",
    "block_d",
    "block_f",
    "electronegativity",
    "covalent_radius",
    "ionic_radius",
    "metallic_radius",
    "vdw_radius",
    "valence_s",
    "valence_p",
    "valence_d",
    "valence_f",
    "ionisation_energy",
    "electron_affinity",
    "dipole_polarisability",
    "oxidation_state_min",
    "oxidation_state_max",
    "oxidation_state_mean",
    "atomic_volume",
    "atomic_mass",
    "melting_point",
)
"""Columns of :func:`element_features`; units in :func:`element_values`."""


@dataclass(frozen=True)
class ElementGap:
    """One value of the table that no source gives: the element, the feature and the rule that filled it."""

    symbol: str
    feature: str
    rule: str


@functools.cache
def element_table() -> dict[str, Any]:
    """The shipped table as parsed JSON; read-only by agreement."""
    text = resources.files("nucleate.physics").joinpath("tables", "elements.json").read_text(encoding="utf-8")
    return json.loads(text)


@functools.cache
def _raw_values() -> dict[str, np.ndarray]:
    table = element_table()
    values = {name: np.asarray(column, dtype=np.float64) for name, column in table["features"].items()}
    for block in "spdf":
        values[f"block_{block}"] = np.array([letter == block for letter in table["block"]], dtype=np.float64)
    return {name: values[name] for name in FEATURE_NAMES}


@functools.cache
def _standardised() -> np.ndarray:
    values = np.stack([_raw_values()[name] for name in FEATURE_NAMES], axis=1)
    return (values - values.mean(axis=0)) / values.std(axis=0)


@functools.cache
def _known() -> np.ndarray:
    known = np.ones((NUM_ELEMENTS, len(FEATURE_NAMES)), dtype=bool)
    for gap in element_gaps():
        known[atomic_number(gap.symbol) - 1, FEATURE_NAMES.index(gap.feature)] = False
    return known


def _rows(atomic_numbers: object) -> np.ndarray:
    z = np.asarray(atomic_numbers)
    if z.size and (z.dtype.kind not in "iu" or z.min() < 1 or z.max() > NUM_ELEMENTS):
        raise InvalidStructureError(
            f"Element data exist for integer atomic numbers 1 to {NUM_ELEMENTS}, got {z.min()} to {z.max()}."
        )
    return np.asarray(z.astype(np.int64) - 1)


def element_features(atomic_numbers: object) -> Float[np.ndarray, "... features"]:
    """Standardised element vectors, one row per atomic number, columns as :data:`FEATURE_NAMES`.

    Every column has mean 0 and variance 1 over the elements 1 to 103, so the vectors do not depend on the
    data set.

    Args:
        atomic_numbers: integers from 1 to 103, any shape.

    Raises:
        InvalidStructureError: an atomic number outside 1 to 103.
    """
    return _standardised()[_rows(atomic_numbers)]


def element_values(feature: str, atomic_numbers: object) -> Float[np.ndarray, "..."]:
    """One feature in physical units, in the shape of the input: Å, eV, a.u. (polarisability), Å³, u, K."""
    if feature not in FEATURE_NAMES:
        raise KeyError(f"{feature!r} is not an element feature; known ones: {', '.join(FEATURE_NAMES)}.")
    return np.asarray(_raw_values()[feature][_rows(atomic_numbers)])


def known_mask(atomic_numbers: object) -> Bool[np.ndarray, "... features"]:
    """True where a value was found in a source, False where it was filled by a rule."""
    return _known()[_rows(atomic_numbers)]


@functools.cache
def element_gaps() -> tuple[ElementGap, ...]:
    """Every filled value of the table with the rule used.

    Rules: ``group neighbours`` (mean of the nearest known elements above and below in the group), ``series
        neighbours``
    (mean of the nearest known neighbours in Z inside the lanthanides or actinides), ``block mean``.
    """
    filled = element_table()["filled"]
    return tuple(ElementGap(s, feature, rule) for feature, by in filled.items() for s, rule in by.items())


def atomic_number(symbol: str) -> int:
    """Atomic number of a chemical symbol; D and T are hydrogen."""
    if symbol in HYDROGEN_ISOTOPES:
        return 1
    try:
        return ATOMIC_NUMBER_OF[symbol]
    except KeyError:
        raise InvalidStructureError(
            f"{symbol!r} is not a chemical symbol; write it as in the periodic table, such as 'Fe'."
        ) from None


def is_metal(z: int, *, metalloids: bool = False) -> bool:
    """Whether an element is a metal; with ``metalloids`` also B, Si, Ge, As, Sb and Te count."""
    letter = element_table()["metallic"][int(_rows(z))]
    return letter == "m" or (metalloids and letter == "s")


def oxidation_states(z: int, kind: Literal["common", "all"] = "common") -> tuple[int, ...]:
    """Non-zero oxidation states of an element, ascending; empty for He, Ne and Ar.

    Args:
        z: atomic number, 1 to 103.
        kind: ``"common"`` are mendeleev's main states and those in at least 10 % of the element's ICSD
            reports; ``"all"`` adds everything with at least 6 ICSD reports and mendeleev's extended states,
            of metals only the positive ones (the negative ones are those of carbonyl complexes).
    """
    if kind not in ("common", "all"):
        raise ValueError(f"kind is 'common' or 'all', got {kind!r}.")
    return tuple(element_table()[f"oxidation_states_{kind}"][int(_rows(z))])


@functools.cache
def oxidation_state_probabilities(z: int) -> dict[int, float]:
    """Share of each state of ``oxidation_states(z, "all")`` among the element's ICSD reports.

    One pseudo-report is given to every listed state, so a state without reports is rare, not impossible.
    """
    reports = {int(s): count for s, count in element_table()["icsd_reports"][int(_rows(z))].items()}
    smoothed = {state: reports.get(state, 0) + 1 for state in oxidation_states(z, "all")}
    total = sum(smoothed.values())
    return {state: count / total for state, count in smoothed.items()}


def ionic_radius(z: int, oxidation_state: int, *, coordination: int = 6, spin: str = "high") -> float | None:
    """Shannon's effective ionic radius in Å, or None where Shannon lists none for this ion and coordination.

    Args:
        z: atomic number.
        oxidation_state: charge of the ion.
        coordination: number of neighbours; regular geometries are preferred to square or pyramidal ones.
        spin: ``"high"`` or ``"low"``, used only where Shannon distinguishes them.

    Source: R. D. Shannon, Acta Cryst. A32 (1976) 751, as in mendeleev.
    """
    if spin not in ("high", "low"):
        raise ValueError(f"spin is 'high' or 'low', got {spin!r}.")
    unwanted = "LS" if spin == "high" else "HS"
    rows = [
        row
        for row in element_table()["shannon_radii"][int(_rows(z))]
        if row[0] == oxidation_state and row[1] == coordination
    ]
    if not rows:
        return None
    return min(rows, key=lambda row: (row[2] != "", row[3] == unwanted))[4]
