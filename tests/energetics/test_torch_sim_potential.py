"""torch-sim models as potentials: ASE's Lennard-Jones behind torch-sim's interface gives what ASE gives."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.lj import LennardJones
from potentials import bundled, emt, lennard_jones, rattled

from nucleate.crystal import Crystal
from nucleate.energetics.batched_relaxation import relax
from nucleate.energetics.named_potentials import load_potential
from nucleate.energetics.torch_sim_potential import TorchSimPotential, is_torch_sim_model
from nucleate.errors import PotentialError

with warnings.catch_warnings():  # torch-sim compiles functions in a way that torch is giving up
    warnings.simplefilter("ignore")
    from torch_sim.models.interface import ModelInterface
    from torch_sim.state import SimState


class LennardJonesOfASE(ModelInterface):
    """Crystal by crystal, taken apart as torch-sim's own models take a state apart."""

    def __init__(self, *, compute_stress: bool = True, columns_as_rows: bool = False) -> None:
        super().__init__()
        self._device, self._dtype = torch.device("cpu"), torch.float64
        self._compute_forces, self._compute_stress = True, compute_stress
        self.columns_as_rows = columns_as_rows
        self.calls: list[int] = []

    def forward(self, state: SimState) -> dict[str, torch.Tensor]:
        self.calls.append(state.n_systems)
        found: dict[str, list[np.ndarray]] = {"energy": [], "forces": [], "stress": []}
        for k in range(state.n_systems):
            own = state.system_idx == k
            rows = state.cell[k] if self.columns_as_rows else state.row_vector_cell[k]
            atoms = Atoms(
                state.atomic_numbers[own].numpy(), state.positions[own].numpy(), cell=rows.numpy(), pbc=True
            )
            atoms.calc = LennardJones(sigma=2.0, epsilon=0.5, rc=6.0, smooth=True)
            found["energy"].append(np.array([atoms.get_potential_energy()]))
            found["forces"].append(atoms.get_forces())
            found["stress"].append(atoms.get_stress(voigt=False)[None])
        return {name: torch.tensor(np.concatenate(parts)) for name, parts in found.items()}


def _crystals(rng: np.random.Generator) -> Sequence[Crystal]:
    return [rattled(bundled(name), rng) for name in ("nacl-rock-salt", "al2o3-corundum", "tio2-anatase")]


def test_many_crystals_in_one_call_give_what_ase_gives(rng: np.random.Generator) -> None:
    cells = [crystal.unit_cell("primitive") for crystal in _crystals(rng)]
    model = LennardJonesOfASE()
    ours = TorchSimPotential(model, identity="lj").evaluate(cells)
    assert model.calls == [3]
    for one, other in zip(ours, lennard_jones().evaluate(cells), strict=True):
        assert one.energy == pytest.approx(other.energy, abs=1e-10)
        np.testing.assert_allclose(one.forces, other.forces, atol=1e-9)
        np.testing.assert_allclose(one.stress, other.stress, atol=1e-10)


def test_cell_vectors_are_told_from_their_transpose(rng: np.random.Generator) -> None:
    """Negative control: a model that reads columns as rows gets another crystal."""
    cell = _crystals(rng)[1].unit_cell("primitive")
    wrong = TorchSimPotential(LennardJonesOfASE(columns_as_rows=True), identity="lj").evaluate([cell])[0]
    assert wrong.energy != pytest.approx(lennard_jones().evaluate([cell])[0].energy, abs=1e-3)


def test_crystals_relax_as_with_ase(rng: np.random.Generator) -> None:
    crystals = _crystals(rng)[:1]
    ours = relax(crystals, TorchSimPotential(LennardJonesOfASE(), identity="lj"))[0]
    theirs = relax(crystals, lennard_jones())[0]
    assert ours.converged
    assert ours.energy_per_atom == pytest.approx(theirs.energy_per_atom, abs=1e-8)


def test_a_model_is_found_by_name_and_must_have_forces_and_stress() -> None:
    potential = load_potential(f"{__name__}:LennardJonesOfASE")
    assert isinstance(potential, TorchSimPotential)
    assert potential.identity.startswith(f"{__name__}:LennardJonesOfASE of ")
    assert is_torch_sim_model(LennardJonesOfASE())
    assert not is_torch_sim_model(emt())
    with pytest.raises(PotentialError, match="does not compute stress: make it with compute_stress=True"):
        TorchSimPotential(LennardJonesOfASE(compute_stress=False), identity="x")
