"""The network on every atom of the full cell in P1, and how far the network on orbits is from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from random_crystals import noisy

from nucleate.crystal import Crystal, CrystalBatch, space_group
from nucleate.models import orbit_transformer
from nucleate.models.invariant_projectors import tangent_projectors
from nucleate.models.orbit_transformer import OrbitInputs, OrbitOutputs, OrbitTransformer
from nucleate.models.tensors import tensor_rotations


@dataclass(frozen=True)
class Deviations:
    """Largest differences between orbits and full cell over the largest value.

    Differences of forces are relative to the stress where it is larger: where symmetry leaves no force, what cancels
    is as large as the stress.
    """

    forces: float
    stress: float
    scalars: float

    @property
    def largest(self) -> float:
        """The largest of them, or NaN where one is."""
        return float(np.max([self.forces, self.stress, self.scalars]))


def in_p1(crystal: Crystal, dtype: torch.dtype = torch.float64) -> tuple[CrystalBatch, torch.Tensor]:
    """The primitive cell in P1, atoms in the order of ``image_coords``, and the rotation of its frame."""
    cell = crystal.unit_cell("primitive")
    fit = space_group(1).lattice_subspace.fit(cell.lattice, num_atoms=cell.num_atoms)
    atoms = np.zeros(cell.num_atoms, dtype=np.int64)
    full = Crystal(1, fit.params, atoms, cell.atomic_numbers, cell.frac_coords)
    return CrystalBatch.from_crystals([full], dtype=dtype), torch.tensor(fit.rotation, dtype=dtype)


FullCell = Callable[[OrbitTransformer, Crystal, OrbitInputs], OrbitOutputs]


def full_cell(model: OrbitTransformer, crystal: Crystal, inputs: OrbitInputs) -> OrbitOutputs:
    """Message passing over every atom of the primitive cell, each with the inputs of its orbit."""
    batch, _ = in_p1(crystal, inputs.scalars.dtype)
    return model.propagate(batch, _at_atoms(crystal, inputs))


def full_cell_of_site_symmetry(
    model: OrbitTransformer, crystal: Crystal, inputs: OrbitInputs
) -> OrbitOutputs:
    """``full_cell`` with the features of every atom projected onto its own site symmetry.

    The projector of image a is R_a P R_a^T. In exact arithmetic it changes nothing. In P1 nothing is projected, and
    where site symmetry leaves no vector each norm makes rounding up to 32 times larger.
    """
    dtype = inputs.scalars.dtype
    batch, turn = in_p1(crystal, dtype)
    orbits = CrystalBatch.from_crystals([crystal], dtype=dtype)
    atoms = orbits.atoms()
    rotations = turn @ atoms.cart_rotations
    turned = tensor_rotations(rotations)
    tangent = rotations @ tangent_projectors(orbits)[atoms.orbit] @ rotations.mT
    original = orbit_transformer.tensor_geometry

    def projected(batch: CrystalBatch, at, directions):
        of_orbits = original(orbits, atoms, directions).projectors[atoms.orbit]
        return replace(original(batch, at, directions), projectors=turned @ of_orbits @ turned.mT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(orbit_transformer, "tangent_projectors", lambda crystals: tangent)
        patch.setattr(orbit_transformer, "tensor_geometry", projected)
        return model.propagate(batch, _at_atoms(crystal, inputs))


def compare_with_full_cell(
    model: OrbitTransformer, crystal: Crystal, full: FullCell = full_cell
) -> Deviations:
    """Deviations between the network on orbits and on the full cell, in the type of its weights."""
    dtype = next(model.parameters()).dtype
    given = noisy([crystal], dtype)
    with torch.no_grad():
        inputs = model.embed(given)
        orbits, atoms = model.propagate(given.crystals, inputs), given.crystals.atoms()
        whole = full(model, crystal, inputs)
    turn = in_p1(crystal, dtype)[1]
    expanded = (atoms.cart_rotations @ orbits.forces[atoms.orbit][:, :, None])[:, :, 0]
    forces = whole.forces @ turn
    stress = turn.mT @ whole.stress @ turn
    if crystal.group.normalizer.directions.shape[1]:
        # P1 floats in every direction, the group only in some: compare what is left of both
        expanded, forces = expanded - expanded.mean(dim=0), forces - forces.mean(dim=0)
    scale = torch.maximum(forces.abs().max(), stress.abs().max())
    scalars = orbits.scalars[atoms.orbit] - whole.scalars
    return Deviations(
        forces=float((expanded - forces).abs().max() / scale),
        stress=float((orbits.stress - stress).abs().max() / stress.abs().max()),
        scalars=float(scalars.abs().max() / whole.scalars.abs().max()),
    )


def _at_atoms(crystal: Crystal, inputs: OrbitInputs) -> OrbitInputs:
    return OrbitInputs(inputs.scalars[torch.tensor(crystal.atom_to_orbit)], inputs.condition)
