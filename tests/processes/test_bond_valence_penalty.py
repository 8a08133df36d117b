"""The bond valence penalty against pymatgen's sums, against real lattice constants, and where nothing can be said."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from pymatgen.core import Structure
from pymatgen.core.bond_valence import calculate_bv_sum

from nucleate.crystal import Crystal, CrystalBatch, encode
from nucleate.data.bundled import bundled_crystal
from nucleate.models.graph import image_pairs
from nucleate.physics.bond_valence import bond_valence_table
from nucleate.processes.bond_valence_penalty import (
    BOND_RADIUS,
    LEAST_VALENCE,
    bond_valence_penalty,
    bond_valence_penalty_of,
)

BONDS = partial(image_pairs, radius=BOND_RADIUS)
WIDE = partial(image_pairs, radius=3.0)
IONIC = {
    "nacl-rock-salt": {"Na": 1, "Cl": -1},
    "tio2-rutile": {"Ti": 4, "O": -2},
    "srtio3-strontium-titanate": {"Sr": 2, "Ti": 4, "O": -2},
}


def bundled(name: str) -> Crystal:
    return encode(bundled_crystal(name).unit_cell).crystal


def scaled(crystal: Crystal, lengths: np.ndarray) -> CrystalBatch:
    """Copies of a crystal with all lengths multiplied; the first lattice parameter is ln of the mean length."""
    batch = CrystalBatch.from_crystals([crystal] * len(lengths), dtype=torch.float64)
    params = batch.lattice_params.clone()
    params[:, 0] += torch.tensor(np.log(lengths))
    return batch.replace(lattice_params=params)


@pytest.mark.parametrize("name", IONIC)
def test_sums_are_those_of_pymatgen(name: str) -> None:
    crystal = bundled(name)
    structure: Structure = crystal.to_structure("primitive")
    expected = []
    for site in structure:
        near = [
            n
            for n in structure.get_neighbors(site, 12.0)
            if IONIC[name][n.specie.symbol] * IONIC[name][site.specie.symbol] < 0
        ]
        total = abs(calculate_bv_sum(site, near))
        expected.append(
            np.log((total + LEAST_VALENCE) / (abs(IONIC[name][site.specie.symbol]) + LEAST_VALENCE)) ** 2
        )
    batch = CrystalBatch.from_crystals([crystal], dtype=torch.float64)
    assert bond_valence_penalty(batch, WIDE).item() == pytest.approx(np.mean(expected), rel=2e-3)
    assert bond_valence_penalty(batch, BONDS).item() == pytest.approx(np.mean(expected), rel=0.3, abs=0.01)


@pytest.mark.parametrize("name", IONIC)
def test_the_best_lattice_constant_is_nearly_the_real_one(name: str) -> None:
    lengths = np.linspace(0.8, 1.25, 46)
    penalties = bond_valence_penalty(scaled(bundled(name), lengths), BONDS)
    assert abs(lengths[int(penalties.argmin())] - 1) < 0.06
    assert penalties[0] > 5 * penalties.min()
    assert penalties[-1] > 5 * penalties.min()


def test_gradients_are_those_of_finite_differences() -> None:
    batch = CrystalBatch.from_crystals(
        [bundled("tio2-rutile"), bundled("al2o3-corundum")], dtype=torch.float64
    )
    penalty = bond_valence_penalty_of(batch, BONDS)

    def total(coords: torch.Tensor, params: torch.Tensor) -> torch.Tensor:
        return penalty(batch.replace(free_coords=coords, lattice_params=params)).sum()

    inputs = (batch.free_coords.clone().requires_grad_(), batch.lattice_params.clone().requires_grad_())
    slopes = torch.autograd.grad(total(*inputs), inputs)
    for slope, which in zip(slopes, (0, 1)):
        at = tuple(np.unravel_index(int(slope.abs().argmax()), slope.shape))
        ends = []
        for sign in (1e-5, -1e-5):
            moved = [x.detach().clone() for x in inputs]
            moved[which][at] += sign
            ends.append(total(*moved).item())
        assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(slope[at].item(), rel=1e-4)


def test_nothing_is_said_of_elements_alloys_and_strangers() -> None:
    silent = [bundled("al-aluminium"), bundled("nial-nickel-aluminium-caesium-chloride-type")]
    batch = CrystalBatch.from_crystals([*silent, bundled("nacl-rock-salt")], dtype=torch.float64)
    found = bond_valence_penalty(batch, BONDS)
    assert found[:2].tolist() == [0.0, 0.0]
    assert found[2] > 0
    assert np.isnan(bond_valence_table().lengths[93, 8])
