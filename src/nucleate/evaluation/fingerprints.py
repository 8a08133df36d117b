"""Fingerprints of structure (CrystalNN order parameters) and composition (Magpie), as published for coverage.

CDVAE (Xie et al., ICLR 2022) describes a crystal by two vectors, both computed with matminer: the mean over its
sites of ``CrystalNNFingerprint("ops")`` (61 numbers: how consistent a site is with each coordination number 1 to
24, and with the motifs of each; Zimmermann and Jain, RSC Adv. 10, 6063, 2020), and the 132 Magpie statistics of
its composition (Ward et al., npj Comput. Mater. 2, 16028, 2016), standardised with the means and deviations that
CDVAE published. Both are used here as they are; only the sites that symmetry makes equal are computed once.
"""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np

from nucleate.crystal import Crystal, UnitCell
from nucleate.crystal.convert import unit_cell_to_pymatgen
from nucleate.crystal.species import element_symbol
from nucleate.evaluation.family import missing_extra
from nucleate.shapes import Float, Int

STRUCTURE_FEATURES = 61
COMPOSITION_FEATURES = 132
LARGEST_CELL = 400
"""Sites of a cell above which no structure fingerprint is computed (about 20 ms a site)."""
SMALLEST_VOLUME = 0.5
"""Volume per atom (Å³) below which none is computed: thousands of neighbours, half a minute a site; no crystal."""

# What pymatgen and matminer raise on cells that no crystal has: no neighbours inside the search radius, a flat
# Voronoi cell (QhullError is a ValueError or RuntimeError, by the version of SciPy), elements without a radius.
_REFUSALS = (ValueError, RuntimeError, ArithmeticError, LookupError, TypeError, AttributeError)


@functools.cache
def _site_featurizer() -> Any:
    try:
        from matminer.featurizers.site.fingerprint import (  # noqa: PLC0415  optional extra, loads in seconds
            CrystalNNFingerprint,
        )
    except ModuleNotFoundError as error:
        raise missing_extra("distribution", error.name or "matminer") from error
    return CrystalNNFingerprint.from_preset("ops")


@functools.cache
def _composition_featurizer() -> Any:
    try:
        from matminer.featurizers.composition.composite import (  # noqa: PLC0415  optional extra, loads in seconds
            ElementProperty,
        )
    except ModuleNotFoundError as error:
        raise missing_extra("distribution", error.name or "matminer") from error
    return ElementProperty.from_preset("magpie", impute_nan=False)


@functools.cache
def published_scaler() -> tuple[Float[np.ndarray, "features"], Float[np.ndarray, "features"]]:
    """Means and standard deviations of the 132 Magpie features, as CDVAE published them."""
    text = resources.files("nucleate.evaluation").joinpath("tables", "magpie_scaler.json").read_text("utf-8")
    table = json.loads(text)
    return np.array(table["mean"]), np.array(table["std"])


def structure_fingerprint(crystal: Crystal | UnitCell) -> Float[np.ndarray, "61"]:
    """Mean over the sites of the CrystalNN order parameters; all NaN where they cannot be computed.

    They cannot where pymatgen gives up, in cells of more than ``LARGEST_CELL`` sites and below ``SMALLEST_VOLUME``
    per atom. A crystal whose sites have no neighbours within 7 Å has zeros.

    Of a ``Crystal`` one site per orbit is computed, in its primitive cell, and weighted by multiplicity; of a
    ``UnitCell`` every site. Both are equal up to ties that pymatgen's Voronoi cells break by rounding: at most
    0.025 over the bundled crystals, where the cut-off of coverage is 0.4.

    Raises:
        MissingExtraError: matminer is not installed.
    """
    featurizer = _site_featurizer()
    if isinstance(crystal, Crystal):
        unit_cell, weights = crystal.unit_cell("primitive"), crystal.multiplicities_primitive
        sites = np.cumsum(weights) - weights
    else:
        unit_cell, weights = crystal, np.ones(crystal.num_atoms, dtype=np.int64)
        sites = np.arange(crystal.num_atoms)
    if unit_cell.num_atoms > LARGEST_CELL or unit_cell.volume < SMALLEST_VOLUME * unit_cell.num_atoms:
        return np.full(STRUCTURE_FEATURES, np.nan)
    try:
        with warnings.catch_warnings():  # one for every radius that pymatgen has to guess
            warnings.simplefilter("ignore")
            structure = unit_cell_to_pymatgen(unit_cell)
            rows = np.array([featurizer.featurize(structure, int(site)) for site in sites], dtype=np.float64)
    except _REFUSALS:
        return np.full(STRUCTURE_FEATURES, np.nan)
    return weights @ rows / weights.sum()


def composition_fingerprint(composition: Mapping[int, int]) -> Float[np.ndarray, "132"]:
    """The standardised Magpie vector of a composition, ``(f - mean) / std`` with CDVAE's scaler.

    A property that an element lacks becomes 0 after scaling, as in the published code.

    Args:
        composition: atoms of each element by atomic number, as ``Crystal.composition``.

    Raises:
        MissingExtraError: matminer is not installed.
    """
    divisor = functools.reduce(np.gcd, composition.values())
    return _composition_fingerprint(tuple(sorted((z, n // int(divisor)) for z, n in composition.items())))


@functools.lru_cache(maxsize=65536)
def _composition_fingerprint(counts: tuple[tuple[int, int], ...]) -> Float[np.ndarray, "132"]:
    featurizer = _composition_featurizer()
    from pymatgen.core import Composition  # noqa: PLC0415  loads late

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            features = featurizer.featurize(Composition({element_symbol(z): n for z, n in counts}))
    except _REFUSALS:  # an element Magpie does not know at all
        return np.full(COMPOSITION_FEATURES, np.nan)
    mean, std = published_scaler()
    scaled = (np.asarray(features, dtype=np.float64) - mean) / std
    scaled = np.where(np.isnan(scaled), 0.0, scaled)
    scaled.setflags(write=False)
    return scaled


def fingerprints(
    crystals: Sequence[Crystal | UnitCell],
) -> tuple[Float[np.ndarray, "crystals 61"], Float[np.ndarray, "crystals 132"]]:
    """(structure, composition) fingerprints, one row per crystal."""
    structure = [structure_fingerprint(crystal) for crystal in crystals]
    composition = [composition_fingerprint(_composition(crystal)) for crystal in crystals]
    return (
        np.array(structure).reshape(-1, STRUCTURE_FEATURES),
        np.array(composition).reshape(-1, COMPOSITION_FEATURES),
    )


def _composition(crystal: Crystal | UnitCell) -> dict[int, int]:
    if isinstance(crystal, Crystal):
        return crystal.composition
    return count_atoms(crystal.atomic_numbers)


def count_atoms(atomic_numbers: Int[np.ndarray, "sites"]) -> dict[int, int]:
    """Atoms of each element of a list of sites, by atomic number."""
    values, counts = np.unique(atomic_numbers, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist()))
