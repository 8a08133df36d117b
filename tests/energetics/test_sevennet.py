"""A foundation model by name against the calculator of its own package, with the weights that come with it."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk

from nucleate.crystal import UnitCell, encode
from nucleate.energetics import RelaxationSettings, load_potential, relax
from nucleate.errors import PotentialError

sevenn = pytest.importorskip("sevenn.calculator", reason="sevenn is not installed")
# The package warns that it has no accelerator for tensor products.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def zinc_oxide():
    return bulk("ZnO", "wurtzite", a=3.3, c=5.3, u=0.38)


def cell_of(atoms) -> UnitCell:
    return UnitCell(atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)


def test_energy_forces_and_stress_are_those_of_its_own_calculator(zinc_oxide):
    found = load_potential("sevennet").evaluate([cell_of(zinc_oxide)])[0]
    zinc_oxide.calc = sevenn.SevenNetCalculator("7net-0", device="cpu")
    assert found.energy == pytest.approx(zinc_oxide.get_potential_energy(), abs=1e-5)
    np.testing.assert_allclose(found.forces, zinc_oxide.get_forces(), atol=1e-4)
    np.testing.assert_allclose(found.stress, zinc_oxide.get_stress(voigt=False), atol=1e-5)


def test_relaxation_ends_where_ase_ends(zinc_oxide):
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS

    crystal = encode(cell_of(zinc_oxide)).crystal
    ours = relax([crystal], load_potential("sevennet"), settings=RelaxationSettings(fmax=0.002))[0]
    zinc_oxide.calc = sevenn.SevenNetCalculator("7net-0", device="cpu")
    BFGS(FrechetCellFilter(zinc_oxide), logfile=None).run(fmax=0.002)
    assert ours.converged
    assert ours.energy_per_atom == pytest.approx(zinc_oxide.get_potential_energy() / 4, abs=1e-5)
    assert ours.crystal.volume_per_atom == pytest.approx(zinc_oxide.get_volume() / 4, rel=1e-3)
    assert abs(ours.energy_per_atom - ours.initial_energy_per_atom) > 1e-4  # and there was a way to go


def test_unknown_weights_are_refused_in_one_sentence():
    with pytest.raises(PotentialError, match="sevenn gives no potential '7net-none'"):
        load_potential("sevennet:7net-none")
