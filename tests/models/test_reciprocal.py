"""The reciprocal channel against sums over every G and every atom, and against gemmi's reflections."""

from __future__ import annotations

from dataclasses import replace

import gemmi
import numpy as np
import pytest
import torch
from pymatgen.core import Lattice
from random_crystals import GROUPS, random_crystal

from nucleate.crystal import Crystal, CrystalBatch, space_group
from nucleate.models.invariant_projectors import tangent_projectors
from nucleate.models.radial import GaussianBasis, envelope
from nucleate.models.reciprocal import (
    NUM_RECIPROCAL_BASIS,
    ReciprocalExchange,
    ReciprocalStress,
    Stars,
    reciprocal_stars,
)

RADIUS = 1.6


def stars_of(batch: CrystalBatch, radius: float = RADIUS) -> Stars:
    basis = GaussianBasis(NUM_RECIPROCAL_BASIS, low=0.0, high=1.0).to(torch.float64)
    return reciprocal_stars(batch, batch.atoms(), tangent_projectors(batch), basis, radius=radius)


def exchange() -> ReciprocalExchange:
    """Four channels that reach scalars and vectors one to one."""
    torch.manual_seed(0)
    module = ReciprocalExchange(4, 4, 4).double()
    with torch.no_grad():
        for weight in (module.out_scalars.weight, module.out_vectors.weight):
            weight.copy_(torch.eye(4))
    return module


def every_vector(crystal: Crystal, radius: float) -> np.ndarray:
    """All reciprocal lattice vectors within the radius (without 2 pi) but 0, by pymatgen."""
    limit = radius / crystal.volume_per_atom ** (1 / 3)
    lattice = Lattice(crystal.primitive_lattice).reciprocal_lattice_crystallographic
    frac = lattice.get_points_in_sphere([[0, 0, 0]], [0, 0, 0], limit, zip_results=False)[0]
    vectors = np.rint(frac) @ lattice.matrix
    return vectors[np.linalg.norm(vectors, axis=1) > 1e-9]


@pytest.mark.parametrize("number", GROUPS)
def test_sums_over_stars_are_sums_over_every_vector_and_atom(number: int) -> None:
    crystal = random_crystal(number)
    batch = CrystalBatch.from_crystals([crystal])
    stars, module = stars_of(batch), exchange()
    torch.manual_seed(1)
    s = torch.randn(crystal.num_orbits, 4, dtype=torch.float64)
    stress = ReciprocalStress(4, 4).double()
    torch.nn.init.normal_(stress.filter.weight)
    with torch.no_grad():
        potential, field = (x.numpy() for x in module(s, stars))
        tensor = stress(s, stars, batch.space_group_number)[0].numpy()
        charges, stress_charges = module.charges(s).numpy(), stress.charges(s).numpy()

    vectors = every_vector(crystal, RADIUS)
    assert sum(_members(stars)) == len(vectors)
    unit = crystal.volume_per_atom ** (1 / 3)
    g = vectors * unit / RADIUS
    length = torch.tensor(np.linalg.norm(g, axis=1))
    basis = GaussianBasis(NUM_RECIPROCAL_BASIS, low=0.0, high=1.0).to(torch.float64)(length)
    weight = (envelope(length) / (4 / 3 * np.pi * RADIUS**3) ** 0.5).numpy()[:, None]
    with torch.no_grad():
        phi, psi = (x.numpy() * weight for x in module.filter(basis).chunk(2, dim=1))
        along, uniform = (x.numpy() * weight for x in stress.filter(basis).chunk(2, dim=1))
    atoms = batch.atoms()
    orbit = atoms.orbit.numpy()
    waves = np.exp(2j * np.pi * atoms.cart_coords.numpy() @ vectors.T)  # atoms x G
    factors = waves.T @ charges[orbit] / crystal.num_atoms_primitive
    first = [int(np.flatnonzero(orbit == i)[0]) for i in range(crystal.num_orbits)]
    at_orbit = waves[first][:, :, None] * factors.conj()[None]
    np.testing.assert_allclose(potential, (at_orbit.real * phi).sum(axis=1), atol=1e-10)
    expected = np.einsum("ogc,gx->oxc", at_orbit.imag * psi, g)
    np.testing.assert_allclose(field, expected, atol=1e-10)
    power = np.abs(waves.T @ stress_charges[orbit] / crystal.num_atoms_primitive) ** 2
    expected = np.einsum("gc,gx,gy->xy", power * along, g, g) + np.eye(3) * (power * uniform).sum()
    np.testing.assert_allclose(tensor, expected, atol=1e-10)


def _members(stars: Stars) -> list[float]:
    length = torch.linalg.vector_norm(stars.vectors, dim=1)
    size = stars.weights / envelope(length) * (4 / 3 * torch.pi * RADIUS**3) ** 0.5
    return [round(x) for x in size.tolist()]


@pytest.mark.parametrize("number", [14, 19, 62, 70, 88, 122, 167, 176, 205, 220, 230])
def test_absent_reflections_and_members_are_those_of_gemmi(number: int) -> None:
    crystal = random_crystal(number)
    group = space_group(number)
    reflections = gemmi.symops_from_hall(group.hall_symbol.replace("=", '"'))
    batch = CrystalBatch.from_crystals([crystal])
    stars = stars_of(batch)
    unit = RADIUS / crystal.volume_per_atom ** (1 / 3)
    miller = np.rint(stars.vectors.numpy() * unit @ crystal.lattice.T).astype(int)
    order = len(reflections.sym_ops)
    absent = 0
    for i, (hkl, members) in enumerate(zip(miller.tolist(), _members(stars))):
        orbit = order // reflections.epsilon_factor_without_centering(hkl)
        assert members == orbit * (1 if reflections.is_reflection_centric(hkl) else 2)
        if reflections.is_systematically_absent(hkl):
            absent += 1
            at = stars.star == i
            assert stars.cosine[at].abs().max() < 1e-12
            assert stars.sine[at].abs().max() < 1e-12
    assert absent


@pytest.mark.parametrize(("number", "letter"), [(221, 0), (225, 0), (229, 0), (1, 0), (166, 0)])
def test_four_stars_at_one_atom_per_cell(number: int, letter: int) -> None:
    group = space_group(number)
    params = np.zeros(group.lattice_subspace.num_params)
    params[0] = np.log(12.0) / 3**0.5
    crystal = Crystal(number, params, np.array([letter]), np.array([29]), np.zeros((1, 3)))
    assert crystal.num_atoms_primitive == 1
    stars = stars_of(CrystalBatch.from_crystals([crystal]), radius=2.3)
    lengths = torch.linalg.vector_norm(stars.vectors, dim=1)
    assert len(torch.unique((lengths * 1e6).round())) >= 4 or number == 1
    assert len(lengths) >= 4
    assert (stars.weights > 0).all()


def test_gradients_are_those_of_finite_differences() -> None:
    batch = CrystalBatch.from_crystals([random_crystal(n) for n in (14, 166, 194)])
    module = exchange()
    torch.manual_seed(1)
    s = torch.randn(len(batch.position_ids), 4, dtype=torch.float64)

    def outputs(free: torch.Tensor, params: torch.Tensor) -> torch.Tensor:
        stars = stars_of(batch.replace(free_coords=free, lattice_params=params), radius=1.1)
        potential, field = module(s, stars)
        return torch.cat([potential.sum(dim=1), field.square().sum(dim=(1, 2))])

    free = batch.free_coords.clone().requires_grad_()
    mask = torch.arange(3) < batch.num_free[:, None]
    params = batch.lattice_params.clone().requires_grad_()
    direction = torch.randn_like(free) * mask
    strain = torch.randn_like(params) * (params != 0)
    gradient = torch.autograd.grad(outputs(free, params).sum(), (free, params))
    slope = (gradient[0] * direction).sum() + (gradient[1] * strain).sum()
    step = 1e-5
    with torch.no_grad():
        ends = [outputs(free + e * direction, params + e * strain).sum() for e in (step, -step)]
    assert float(slope) == pytest.approx(float(ends[0] - ends[1]) / (2 * step), rel=1e-6)


def test_without_the_members_of_stars_the_sums_differ() -> None:
    """Negative control: representatives alone are another function."""
    batch = CrystalBatch.from_crystals([random_crystal(88)])
    stars, module = stars_of(batch), exchange()
    s = torch.randn(len(batch.position_ids), 4, dtype=torch.float64)
    length = torch.linalg.vector_norm(stars.vectors, dim=1)
    alone = replace(stars, weights=envelope(length))
    with torch.no_grad():
        right, wrong = module(s, stars)[0], module(s, alone)[0]
    ratio = right / wrong
    assert float((ratio - ratio.mean()).abs().max()) > 1e-3
