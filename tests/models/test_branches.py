"""With every branch on, the network still equals the full cell in P1 and is blind to what is not physics."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from random_crystals import BRANCHED, GROUPS, compare_with_full_cell, in_p1, network, noisy, random_crystal

from nucleate.crystal import Crystal, CrystalBatch, space_group
from nucleate.crystal.batch import Atoms
from nucleate.crystal.reencode import mirror_image, random_encoding
from nucleate.models import coarse, layers, orbit_transformer, reciprocal
from nucleate.models.orbit_transformer import NoisyCrystals, OrbitInputs, OrbitTransformer


@cache
def branched() -> OrbitTransformer:
    """The network with every branch and every weight random."""
    return network(config=BRANCHED)


@pytest.mark.parametrize("number", GROUPS[::2])
def test_orbits_equal_the_full_cell_in_p1(number: int) -> None:
    force, stress = compare_with_full_cell(branched(), number)
    assert force < 1e-8
    assert stress < 1e-8


def _invariants(model, crystal: Crystal) -> tuple[np.ndarray, float, np.ndarray]:
    n = torch.full((1,), 0.4, dtype=torch.float64)
    given = NoisyCrystals(CrystalBatch.from_crystals([crystal]), n, n, torch.ones(1, dtype=torch.int64))
    with torch.no_grad():
        out = model(given)
    lengths = np.linalg.norm(out.displacements.numpy(), axis=1)
    # orbits may come in another order
    order = np.lexsort((out.element_logits[:, 0].numpy().round(6), lengths.round(6)))
    return lengths[order], float(out.lattice_params[0, 0]), out.element_logits.numpy()[order]


@pytest.mark.parametrize("number", GROUPS[::3])
def test_encodings_and_the_mirror_image_give_the_same_invariants(number: int) -> None:
    """Normalizer elements, other representatives, floating origins and reflections of space."""
    model, crystal = branched(), random_crystal(number)
    variants = [mirror_image(crystal)]
    if number > 15:  # in oblique systems the noise itself depends on the choice of cell
        variants.append(random_encoding(crystal, np.random.default_rng(number)))
    reference = _invariants(model, crystal)
    for variant in variants:
        for found, expected in zip(_invariants(model, variant), reference):
            np.testing.assert_allclose(found, expected, atol=1e-8)


def _p1(lattice: np.ndarray, frac: np.ndarray) -> tuple[CrystalBatch, torch.Tensor]:
    fit = space_group(1).lattice_subspace.fit(lattice, num_atoms=len(frac))
    n = np.zeros(len(frac), dtype=np.int64)
    full = Crystal(1, fit.params, n, np.full(len(frac), 6), frac)
    return CrystalBatch.from_crystals([full]), torch.tensor(fit.rotation)


@pytest.mark.parametrize("change", ["origin", "rotation", "supercell"])
def test_origin_rotation_and_supercell(change: str) -> None:
    crystal = random_crystal(88)
    cell = crystal.unit_cell("primitive")
    lattice, frac, copies = cell.lattice, cell.frac_coords, 1
    if change == "origin":
        frac = frac + np.array([0.13, 0.41, 0.77])
    elif change == "rotation":
        turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
        lattice = lattice @ (turn if np.linalg.det(turn) > 0 else -turn)
    else:
        copies = 3
        matrix = np.array([[1, 0, 0], [1, 3, 0], [0, 0, 1]])
        lattice = matrix @ lattice
        frac = np.concatenate([frac + np.array([0, i, 0]) for i in range(copies)]) @ np.linalg.inv(matrix)
    model = branched()
    given = noisy([crystal])
    with torch.no_grad():
        inputs = model.embed(given)
        atoms = given.crystals.atoms()
        spread = inputs.scalars[atoms.orbit]
        first, first_turn = _p1(cell.lattice, cell.frac_coords)
        second, second_turn = _p1(lattice, frac)
        one = model.propagate(first, OrbitInputs(spread, inputs.condition))
        two = model.propagate(second, OrbitInputs(spread.repeat(copies, 1), inputs.condition))
    # invariants of the force field and of the stress
    lengths = torch.linalg.vector_norm(one.forces, dim=1).repeat(copies)
    torch.testing.assert_close(torch.linalg.vector_norm(two.forces, dim=1), lengths, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(
        torch.linalg.eigvalsh(two.stress), torch.linalg.eigvalsh(one.stress), rtol=1e-8, atol=1e-8
    )
    torch.testing.assert_close(two.scalars, one.scalars.repeat(copies, 1), rtol=1e-8, atol=1e-8)
    if change != "rotation":  # in one Cartesian frame the forces are the same vectors
        torch.testing.assert_close(
            two.forces @ second_turn, (one.forces @ first_turn).repeat(copies, 1), rtol=1e-7, atol=1e-8
        )


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
    force, stress = _compare(crystal)
    assert max(force, stress) > 1e-5


def test_the_crystal_of_the_negative_control_passes_unbroken() -> None:
    force, stress = _compare(_one_element(random_crystal(14)))
    assert force < 1e-8
    assert stress < 1e-8


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


def _compare(crystal: Crystal) -> tuple[float, float]:
    model = branched()
    given = noisy([crystal])
    with torch.no_grad():
        inputs = model.embed(given)
        orbits = model.propagate(given.crystals, inputs)
        atoms = given.crystals.atoms()
        batch, rotation = in_p1(crystal)
        full = model.propagate(batch, OrbitInputs(inputs.scalars[atoms.orbit], inputs.condition))
    turn = torch.tensor(rotation)
    expanded = (atoms.cart_rotations @ orbits.forces[atoms.orbit][:, :, None])[:, :, 0]
    stress = turn.mT @ full.stress @ turn
    return (
        float((expanded - full.forces @ turn).abs().max() / expanded.abs().max()),
        float((orbits.stress - stress).abs().max() / stress.abs().max()),
    )
