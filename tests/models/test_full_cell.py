"""On orbits the network computes what it computes on the full cell in P1, in double and in single precision.

The features of every atom of the full cell are projected onto its site symmetry, as those of orbits are
(``full_cell_of_site_symmetry``). Without it rounding grows where site symmetry leaves no vector: with random weights
to 0.04 of the largest value in single precision, with the trained ones to 0.5 even in double precision.
"""

from __future__ import annotations

from functools import cache

import pytest
import torch
from broken_networks import images_carry_one_orientation
from full_cell import compare_with_full_cell, full_cell_of_site_symmetry
from random_crystals import BRANCHED, GROUPS, network, random_crystal

from nucleate.models.checkpoint import default_weights, load_checkpoint
from nucleate.models.orbit_transformer import OrbitTransformer

# The trained weights come to 9.6e-6 in group 227, where two atoms are 0.08 Å apart; other processors round otherwise.
TOLERANCES = {
    ("small", torch.float64): 1e-8,
    ("small", torch.float32): 1e-5,
    ("branched", torch.float64): 1e-8,
    ("branched", torch.float32): 1e-5,
    ("shipped", torch.float64): 1e-8,
    ("shipped", torch.float32): 2e-5,
}


@cache
def of(name: str, dtype: torch.dtype) -> OrbitTransformer:
    """One of the networks in one type."""
    if name == "shipped":
        model = load_checkpoint(default_weights()).geometry
        assert model is not None
    else:
        model = network(config=BRANCHED) if name == "branched" else network()
    return model.to(dtype)


@pytest.mark.parametrize("number", GROUPS)
@pytest.mark.parametrize(("name", "dtype"), TOLERANCES, ids=str)
def test_orbits_equal_the_full_cell_in_both_precisions(name: str, dtype: torch.dtype, number: int) -> None:
    found = compare_with_full_cell(of(name, dtype), random_crystal(number), full_cell_of_site_symmetry)
    assert found.largest < TOLERANCES[name, dtype], found


@pytest.mark.parametrize("number", [14, 62, 88, 152, 173, 198])
@pytest.mark.parametrize(("name", "dtype"), TOLERANCES, ids=str)
def test_images_of_one_orientation_are_another_network(
    name: str, dtype: torch.dtype, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: in P1 there is nothing to rotate."""
    images_carry_one_orientation(monkeypatch)
    found = compare_with_full_cell(of(name, dtype), random_crystal(number), full_cell_of_site_symmetry)
    assert found.largest > 1e-3, found
