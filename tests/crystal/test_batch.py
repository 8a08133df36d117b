"""Batches equal the crystals they were made of, and their derivatives equal finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic import random_crystal, same_encoding

from nucleate.crystal import Crystal, CrystalBatch
from nucleate.crystal.batch import group_tensors
from nucleate.errors import InvalidStructureError


@pytest.fixture(scope="module")
def crystals() -> list[Crystal]:
    """One random crystal of each group."""
    return [random_crystal(n, np.random.default_rng(n)) for n in range(1, 231)]


@pytest.fixture(scope="module")
def batch(crystals: list[Crystal]) -> CrystalBatch:
    return CrystalBatch.from_crystals(crystals)


def test_atoms_equal_those_of_every_crystal(crystals: list[Crystal], batch: CrystalBatch) -> None:
    atoms = batch.atoms()
    lattices, primitive = batch.lattices().numpy(), batch.primitive_lattices().numpy()
    ends = np.cumsum([c.num_atoms_primitive for c in crystals])
    orbit_start = np.cumsum([0, *[c.num_orbits for c in crystals]])
    assert len(atoms.frac_coords) == ends[-1]
    for i, (crystal, end) in enumerate(zip(crystals, ends)):
        rows = slice(end - crystal.num_atoms_primitive, end)
        assert np.allclose(atoms.frac_coords[rows].numpy(), crystal.image_coords(), atol=1e-12)
        assert np.allclose(
            atoms.cart_coords[rows].numpy(), crystal.image_coords() @ crystal.lattice, atol=1e-10
        )
        assert (atoms.crystal[rows] == i).all()
        assert (atoms.orbit[rows].numpy() == crystal.atom_to_orbit + orbit_start[i]).all()
        assert np.allclose(lattices[i], crystal.lattice, atol=1e-10)
        assert np.allclose(primitive[i], crystal.primitive_lattice, atol=1e-10)
    assert batch.num_atoms.tolist() == [c.num_atoms for c in crystals]
    assert batch.num_atoms_primitive.tolist() == [c.num_atoms_primitive for c in crystals]
    assert np.allclose(batch.volume_per_atom.numpy(), [c.volume_per_atom for c in crystals])


def test_cartesian_rotations_carry_the_representative_to_its_image(batch: CrystalBatch) -> None:
    atoms = batch.atoms()
    R = atoms.cart_rotations
    assert torch.allclose(R @ R.mT, torch.eye(3, dtype=torch.float64).expand_as(R), atol=1e-10)
    # a small step of the representative, rotated, is the step of the image
    step = torch.randn(
        len(batch.position_ids), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    tables = batch.tables
    moved = batch.replace(
        free_coords=batch.free_coords
        + 1e-3 * step * (step.new_tensor(np.arange(3)) < tables["num_free"][batch.position_ids][:, None])
    )
    lattices = batch.lattices()[atoms.crystal]
    du = (moved.representatives() - batch.representatives())[atoms.orbit]
    expected = (R @ (du[:, None] @ lattices).mT)[:, :, 0]
    assert torch.allclose(moved.atoms().cart_coords - atoms.cart_coords, expected, atol=1e-12)


def test_there_and_back(crystals: list[Crystal], batch: CrystalBatch) -> None:
    again = batch.to_crystals()
    assert len(batch) == len(again) == 230
    assert all(same_encoding(a, b, tolerance=0) for a, b in zip(crystals, again))


@pytest.mark.parametrize(
    "index",
    [
        slice(10, 20), slice(None), slice(None, None, -7), slice(5, 5), slice(-3, None),
        torch.tensor([3, 3, 229, 0]), torch.tensor([], dtype=torch.int64), torch.arange(230) % 3 == 1,
        torch.tensor(7), 0, -1, 229, -230,
    ],
    ids=str,
)  # fmt: skip
def test_slicing_equals_slicing_the_list(index, crystals: list[Crystal], batch: CrystalBatch) -> None:
    numbers = np.arange(230)[index.numpy() if isinstance(index, torch.Tensor) else index]
    expected = [crystals[i] for i in np.atleast_1d(numbers)]
    found = batch[index].to_crystals()
    assert len(found) == len(batch[index]) == len(expected)
    assert all(same_encoding(a, b, tolerance=0) for a, b in zip(expected, found))
    if expected:
        assert len(batch[index].atoms().orbit) == sum(c.num_atoms_primitive for c in expected)


@pytest.mark.parametrize("index", [230, -231])
def test_indices_outside_are_refused(index: int, batch: CrystalBatch) -> None:
    with pytest.raises(IndexError, match=f"230 crystals, asked for {index}"):
        batch[index]


def test_iterating_ends_also_for_an_empty_batch(batch: CrystalBatch) -> None:
    assert len(list(batch[:5])) == 5
    empty = batch[5:5]
    assert len(empty) == 0
    assert list(empty) == []
    assert empty.to_crystals() == []
    assert len(empty.atoms().orbit) == 0
    assert len(CrystalBatch.from_crystals([])) == 0


def test_concatenation(crystals: list[Crystal], batch: CrystalBatch) -> None:
    joined = CrystalBatch.cat([batch[100:], batch[:0], batch[:100]])
    expected = crystals[100:] + crystals[:100]
    assert all(same_encoding(a, b, tolerance=0) for a, b in zip(expected, joined.to_crystals()))
    assert torch.equal(joined.orbit_to_crystal.bincount(), joined.num_orbits)


def test_to_another_type_and_device(batch: CrystalBatch) -> None:
    single = batch.to("cpu", torch.float32)
    assert single.lattice_params.dtype == single.atoms().cart_coords.dtype == torch.float32
    assert single.space_group_number.dtype == torch.int64
    assert torch.allclose(single.atoms().cart_coords.double(), batch.atoms().cart_coords, atol=1e-3)
    assert group_tensors(torch.device("cpu"), torch.float32)["basis"].dtype == torch.float32


def test_orbits_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(InvalidStructureError, match="add up to 3, got 2 orbits"):
        CrystalBatch.from_arrays(
            space_group_number=np.array([136]),
            lattice_params=np.zeros((1, 6)),
            num_orbits=np.array([3]),
            wyckoff_indices=np.array([0, 5]),
            atomic_numbers=np.array([22, 8]),
            free_coords=np.zeros((2, 3)),
        )


@pytest.mark.parametrize("number", [2, 9, 15, 43, 62, 122, 136, 146, 166, 178, 194, 206, 216, 227])
def test_gradients_equal_finite_differences(number: int) -> None:
    crystal = random_crystal(number, np.random.default_rng(number))
    batch = CrystalBatch.from_crystals([random_crystal(1, np.random.default_rng(0)), crystal])
    free = batch.free_coords.clone().requires_grad_()
    params = batch.lattice_params.clone().requires_grad_()
    weights = torch.randn(
        len(batch.atoms().orbit), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(number)
    )

    def energy(u: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        atoms = batch.replace(free_coords=u, lattice_params=p).atoms()
        return (weights * atoms.cart_coords).sum() + (atoms.cart_coords**2).sum() / 10

    energy(free, params).backward()
    mask = torch.arange(3) < batch.tables["num_free"][batch.position_ids][:, None]
    assert not free.grad[~mask].any()  # columns that are not free move nothing
    step = 1e-6
    for tensor, chosen in ((free, mask), (params, params.detach() != 0)):
        for row, column in chosen.nonzero()[::2].tolist():
            values = []
            for sign in (1, -1):
                moved = tensor.detach().clone()
                moved[row, column] += sign * step
                pair = (moved, params.detach()) if tensor is free else (free.detach(), moved)
                values.append(energy(*pair).item())
            numeric = (values[0] - values[1]) / (2 * step)
            assert np.isclose(tensor.grad[row, column].item(), numeric, rtol=1e-5, atol=1e-4)
