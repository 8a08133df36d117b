"""Guidance against tilted Gaussians, and the energies it is made of against finite differences and real crystals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from nucleate.crystal import Crystal, CrystalBatch
from nucleate.errors import ConfigError
from nucleate.models.graph import orbit_graph
from nucleate.physics import density, minimum_distance, volume_per_atom
from nucleate.processes.geometry_diffusion import GeometryDiffusion
from nucleate.processes.geometry_flow import GeometryFlow
from nucleate.processes.geometry_process import GeometryNoise
from nucleate.processes.guidance import LATTICE_SPREAD, GuidanceTerm, guide_by
from nucleate.processes.penalties import (
    PAIR_RADIUS,
    REPULSION_RADIUS,
    density_penalty,
    distance_penalty,
    energy_function,
    repulsion_energy,
    volume_penalty,
)
from nucleate.processes.sampler import sample_geometry

MEAN, STD = 1.6, 0.2
STATS = (torch.tensor([MEAN, 0, 0, 0, 0, 0]), torch.full((6,), STD))


@dataclass
class Guess:
    displacements: Tensor
    lattice_params: Tensor


def rock_salt(volume: float) -> Crystal:
    return Crystal(
        225, np.array([np.log(volume) / 3**0.5]), np.array([0, 1]), np.array([11, 17]), np.zeros((2, 3))
    )


def rutile(size: float, x: float) -> Crystal:
    coords = np.array([[0, 0, 0], [x, 0, 0]])
    return Crystal(136, np.array([size, -0.3]), np.array([0, 5]), np.array([22, 8]), coords)


def pairs(crystals: CrystalBatch):
    return orbit_graph(crystals, crystals.atoms(), radius=PAIR_RADIUS)


@pytest.mark.parametrize("process", [GeometryFlow(*STATS), GeometryDiffusion(*STATS)])
@pytest.mark.parametrize("stiffness", [0.0, 40.0])
def test_a_quadratic_energy_tilts_a_gaussian_by_the_known_amount(process, stiffness: float) -> None:
    """Data N(m, s^2) tilted by exp(-k (p - q)^2 / 2) is N((m/s^2 + k q)/(1/s^2 + k), 1/(1/s^2 + k))."""
    m, s, target = 1.7, LATTICE_SPREAD * STD, 1.9
    batch = CrystalBatch.cat([CrystalBatch.from_crystals([rock_salt(20.0)])] * 600)

    def exact(noisy: CrystalBatch, coord_level: Tensor, lattice_level: Tensor) -> Guess:
        level = lattice_level
        scale = (
            torch.rsqrt((1 - level) ** 2 + level**2)
            if process.kind == "diffusion"
            else torch.ones_like(level)
        )
        alpha, sigma = scale * (1 - level), scale * level * STD
        start = MEAN if process.kind == "diffusion" else 0.0
        end = 0.0 if process.kind == "diffusion" else MEAN * level
        away = noisy.lattice_params[:, 0] - start - end - alpha * (m - start)
        clean = m + alpha * s**2 / (alpha**2 * s**2 + sigma**2) * away
        return Guess(torch.zeros(len(noisy.position_ids), 3), torch.nn.functional.pad(clean[:, None], (0, 5)))

    term = GuidanceTerm(lambda c: 0.5 * (c.lattice_params[:, 0] - target) ** 2, stiffness)
    noise = GeometryNoise.draw(batch, torch.Generator().manual_seed(0))
    found = sample_geometry(
        process, batch, exact, noise=noise, steps=30, solver="heun", guide=guide_by(process, [term])
    )
    params = found.lattice_params[:, 0]
    precision = 1 / s**2 + stiffness
    mean = (m / s**2 + stiffness * target) / precision
    assert float(params.mean()) == pytest.approx(mean, abs=0.01)
    assert float(params.std()) == pytest.approx(precision**-0.5, rel=0.12)
    if stiffness:  # without guidance the mean is far from there
        assert abs(mean - m) > 0.02


def test_guidance_pulls_atoms_apart_and_leaves_fixed_ones() -> None:
    """Two atoms of rutile's anions drawn together by the denoiser are held off by the distance term."""
    batch = CrystalBatch.from_crystals([rutile(1.45, 0.12)])
    flow = GeometryFlow(*STATS)

    def stubborn(noisy: CrystalBatch, coord_level: Tensor, lattice_level: Tensor) -> Guess:
        return Guess(torch.zeros(2, 3), batch.lattice_params)

    energy = distance_penalty
    term = GuidanceTerm(lambda c: energy(c, pairs(c)) * c.num_atoms_primitive, 20.0)
    guide = guide_by(flow, [term])
    level = torch.full((1,), 0.5, dtype=torch.float64)
    guess = stubborn(batch, level, level)
    guided = guide(batch, guess, level, level)
    moved = batch.replace(free_coords=batch.free_coords.clone(), lattice_params=guided.lattice_params)
    assert float(guided.displacements[0].abs().max()) == 0
    assert float(guided.displacements[1].norm()) > 0.02
    assert float(moved.volume_per_atom) > float(batch.volume_per_atom)
    zero = torch.zeros(1, dtype=torch.float64)
    at_the_data = guide(batch, guess, zero, zero)
    torch.testing.assert_close(at_the_data.displacements, torch.zeros(2, 3))
    torch.testing.assert_close(at_the_data.lattice_params, batch.lattice_params)


@pytest.mark.parametrize("name", ["distance", "repulsion", "density", "volume"])
def test_slopes_are_those_of_finite_differences(name: str) -> None:
    crowded = rutile(0.9, 0.2)
    if name == "density":
        crowded = Crystal(225, np.array([0.5]), np.array([0]), np.array([76]), np.zeros((1, 3)))
    batch = CrystalBatch.from_crystals([crowded])
    energy = {
        "distance": lambda c: distance_penalty(c, pairs(c)),
        "repulsion": lambda c: repulsion_energy(c, pairs(c)),
        "density": density_penalty,
        "volume": volume_penalty,
    }[name]
    params = batch.lattice_params.clone().requires_grad_()
    coords = batch.free_coords.clone().requires_grad_()
    energy(batch.replace(lattice_params=params, free_coords=coords)).sum().backward()

    def at(change: float, coord: float) -> float:
        shift = torch.zeros_like(batch.lattice_params)
        shift[0, 0] = change
        moved = torch.zeros_like(batch.free_coords)
        moved[-1, 0] = coord
        params, coords = batch.lattice_params + shift, batch.free_coords + moved
        return float(energy(batch.replace(lattice_params=params, free_coords=coords)))

    assert float(params.grad[0, 0]) == pytest.approx((at(1e-5, 0) - at(-1e-5, 0)) / 2e-5, rel=1e-4)
    assert float(params.grad[0, 0]) != 0
    if name in ("distance", "repulsion"):
        assert float(coords.grad[-1, 0]) == pytest.approx((at(0, 1e-6) - at(0, -1e-6)) / 2e-6, rel=1e-4)


def test_density_penalty_starts_where_the_bounds_are() -> None:
    osmium, hydrogen = (
        Crystal(225, np.array([np.log(v) / 3**0.5]), np.array([0]), np.array([z]), np.zeros((1, 3)))
        for v, z in ((14.0, 76), (40.0, 1))
    )
    batch = CrystalBatch.from_crystals([osmium, hydrogen, rock_salt(22.4)])
    penalty = density_penalty(batch)
    assert float(penalty[0]) == 0  # 22.6 g/cm³
    assert float(penalty[2]) == 0
    assert float(penalty[1]) == pytest.approx(np.log(0.5 / density({"H": 1}, 40.0)) ** 2, rel=1e-4)


def test_repulsion_costs_an_electronvolt_per_pair_at_the_smallest_distance() -> None:
    minimum = minimum_distance(11, 17)
    batch = CrystalBatch.from_crystals(
        [rock_salt(minimum**3), rock_salt(volume_per_atom({"Na": 1, "Cl": 1}).mean)]
    )
    energies = repulsion_energy(batch, pairs(batch))
    # six neighbours, each pair shared by two atoms; like ions are farther
    assert float(energies[0]) == pytest.approx(3.0, rel=0.25)
    assert float(energies[1]) < 0.5


@pytest.mark.parametrize(("z", "volume"), [(12, 9.3), (55, 55.0), (1, 4.0)])
def test_repulsion_ends_smoothly_within_the_pairs_that_are_searched(z: int, volume: float) -> None:
    """MgO, CsCl's metal lattice and dense hydrogen: a wider search finds nothing more, a narrower one misses pairs."""
    crystal = Crystal(
        225, np.array([np.log(volume) / 3**0.5]), np.array([0, 1]), np.array([z, 8]), np.zeros((2, 3))
    )
    batch = CrystalBatch.from_crystals([crystal])

    def energy(radius: float) -> float:
        return float(repulsion_energy(batch, orbit_graph(batch, batch.atoms(), radius=radius)))

    assert energy(REPULSION_RADIUS) == pytest.approx(energy(4.0), rel=1e-6)
    if z == 12:
        assert energy(PAIR_RADIUS) < 0.9 * energy(4.0)


def test_repulsion_does_not_jump_where_pairs_end() -> None:
    """A crystal so dense that the search ends within the window, swollen until like ions leave it."""
    energies = []
    for volume in np.linspace(2.0, 2.6, 301):
        batch = CrystalBatch.from_crystals([rock_salt(volume)])
        energies.append(float(repulsion_energy(batch, pairs(batch)).log()))
    assert np.abs(np.diff(energies)).max() < 0.02


def test_energies_are_found_by_name() -> None:
    batch = CrystalBatch.from_crystals([rock_salt(10.0)])
    assert torch.equal(energy_function("repulsion", pairs)(batch), repulsion_energy(batch, pairs(batch)))
    foreign = energy_function("nucleate.processes.penalties:density_penalty", pairs)
    assert torch.equal(foreign(batch), density_penalty(batch))
    for name, reason in (
        ("chgnet", "neither repulsion nor of the form"),
        ("nowhere.at.all:energy", "cannot be loaded"),
        ("math:pi", "is a float, expected a function"),
    ):
        with pytest.raises(ConfigError, match=reason):
            energy_function(name, pairs)
