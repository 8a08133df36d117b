"""Density against pymatgen and known solids, and its bounds."""

from __future__ import annotations

import math

import pytest

from nucleate.errors import InvalidStructureError
from nucleate.physics import check_density, density


def test_density_agrees_with_pymatgen():
    from pymatgen.core import Lattice, Structure

    sites = [[0, 0, 0], [0.5, 0.5, 0.5]]
    structure = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], sites)
    ours = density(structure.composition, structure.volume)
    assert ours == pytest.approx(float(structure.density), rel=1e-4)
    assert density([11, 17] * 4, structure.volume) == pytest.approx(ours)


def test_osmium_passes_and_the_bounds_hold():
    assert check_density(22.59).ok
    assert check_density(0.5).ok
    assert check_density(25.0).ok
    thin, thick = check_density(0.49), check_density(25.1)
    assert not thin.ok
    assert "below 0.5" in thin.reason
    assert "above 25" in thick.reason
    assert check_density(22.59).reason == ""
    assert not check_density(math.nan).ok
    assert "not a number" in check_density(math.nan).reason
    assert not check_density(22.59, maximum=20.0).ok


@pytest.mark.parametrize("volume", [0.0, -1.0, math.inf, math.nan])
def test_volumes_that_are_none_are_refused(volume):
    with pytest.raises(InvalidStructureError, match="positive volume"):
        density({"Fe": 1}, volume)
