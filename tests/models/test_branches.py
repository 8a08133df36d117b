"""With every branch on, the network still equals the full cell in P1, and batches do not matter."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from full_cell import compare_with_full_cell
from random_crystals import BRANCHED, GROUPS, network, noisy, random_crystal

from nucleate.crystal import Crystal
from nucleate.crystal.batch import Atoms
from nucleate.models import coarse, layers, orbit_transformer, reciprocal
from nucleate.models.orbit_transformer import NoisyCrystals, OrbitTransformer


@cache
def branched() -> OrbitTransformer:
    """The network with every branch and every weight random."""
    return network(config=BRANCHED)


@pytest.mark.parametrize("number", GROUPS)
def test_orbits_equal_the_full_cell_in_p1(number: int) -> None:
    assert compare_with_full_cell(branched(), random_crystal(number)).largest < 1e-8


def test_batch_composition_does_not_matter() -> None:
    model = branched()
    given = noisy([random_crystal(n) for n in GROUPS[::6]])
    with torch.no_grad():
        together = model(given)
        for i, rows in enumerate(torch.split(together.displacements, given.crystals.num_orbits.tolist())):
            times = given.coord_time[i : i + 1], given.lattice_time[i : i + 1]
            alone = model(NoisyCrystals(given.crystals[i], *times, given.source[:1]))
            torch.testing.assert_close(rows, alone.displacements, rtol=1e-9, atol=1e-9)


def _broken_atoms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rotations of tensors and of reciprocal vectors left out; those of vectors stay."""
    original = orbit_transformer.reciprocal_stars

    def unrotated(batch, atoms: Atoms, *args, **kwargs):
        eye = torch.eye(3, dtype=atoms.rotations.dtype).expand_as(atoms.rotations)
        fields = {**vars(atoms), "rotations": eye}
        return original(batch, Atoms(**fields), *args, **kwargs)

    monkeypatch.setattr(orbit_transformer, "reciprocal_stars", unrotated)


def _broken_members(monkeypatch: pytest.MonkeyPatch) -> None:
    original = reciprocal._representatives

    def one_each(batch, radius):
        crystal, miller, members = original(batch, radius)
        return crystal, miller, torch.ones_like(members)

    monkeypatch.setattr(reciprocal, "_representatives", one_each)


def _broken_pooling(monkeypatch: pytest.MonkeyPatch) -> None:
    original = orbit_transformer.coarse_levels

    def unweighted(*args, **kwargs):
        levels = original(*args, **kwargs)
        count = torch.bincount(levels.sublattice).to(levels.orbit_share.dtype)
        return coarse.Levels(**{**vars(levels), "orbit_share": 1 / count[levels.sublattice]})

    monkeypatch.setattr(orbit_transformer, "coarse_levels", unweighted)


def _broken_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    original = orbit_transformer.tensor_geometry

    def unrotated(*args):
        geometry = original(*args)
        eye = torch.eye(5, dtype=geometry.rotations.dtype).expand_as(geometry.rotations)
        return layers.TensorGeometry(**{**vars(geometry), "rotations": eye})

    monkeypatch.setattr(orbit_transformer, "tensor_geometry", unrotated)


@pytest.mark.parametrize("broken", [_broken_atoms, _broken_members, _broken_pooling, _broken_tensors])
def test_a_broken_branch_is_another_network(monkeypatch: pytest.MonkeyPatch, broken) -> None:
    """Negative control: leave out one rotation or one multiplicity, and the full cell is not reached."""
    broken(monkeypatch)
    crystal = _one_element(random_crystal(14))
    assert compare_with_full_cell(branched(), crystal).largest > 1e-5


def test_the_crystal_of_the_negative_control_passes_unbroken() -> None:
    assert compare_with_full_cell(branched(), _one_element(random_crystal(14))).largest < 1e-8


def _one_element(crystal: Crystal) -> Crystal:
    """All orbits of one element, so that its sublattice holds orbits of unequal multiplicity."""
    assert len(set(crystal.multiplicities_primitive)) > 1
    numbers = np.full(crystal.num_orbits, 14)
    return Crystal(
        crystal.space_group_number,
        crystal.lattice_params,
        crystal.wyckoff_indices,
        numbers,
        crystal.free_coords,
    )
