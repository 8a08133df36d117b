"""The flow against closed forms: a known answer is reached, a Gaussian target keeps its moments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from nucleate.crystal import Crystal, CrystalBatch
from nucleate.processes.geometry_flow import GeometryFlow
from nucleate.processes.geometry_process import GeometryNoise, geometry_losses
from nucleate.processes.wyckoff_torus import cartesian_from_coords, log_map, without_drift


@dataclass
class Guess:
    displacements: Tensor
    lattice_params: Tensor


def crystals() -> CrystalBatch:
    rutile = Crystal(
        136, np.array([1.45, -0.3]), np.array([0, 5]), np.array([22, 8]), np.array([[0, 0, 0], [0.305, 0, 0]])
    )
    pnma = Crystal(62, np.array([1.5, 0.1, -0.2]), np.array([2, 3, 2]), np.array([20, 8, 8]),
                   np.array([[0.03, 0.99, 0], [0.29, 0.04, 0.71], [0.48, 0.08, 0]]))  # fmt: skip
    polar = Crystal(
        186,
        np.array([1.6, 0.1]),
        np.array([1, 1]),
        np.array([30, 16]),
        np.array([[0.0, 0, 0], [0.375, 0, 0]]),
    )
    return CrystalBatch.from_crystals([rutile, pnma, polar])


FLOW = GeometryFlow(torch.tensor([1.6, 0.2, 0, 0, 0, 0]), torch.tensor([0.2, 0.4, 0.4, 0.2, 0.2, 0.2]))


def noise_for(batch: CrystalBatch, seed: int = 0) -> GeometryNoise:
    return GeometryNoise.draw(batch, torch.Generator().manual_seed(seed))


def test_noise_level_zero_is_the_data_and_one_is_the_prior() -> None:
    clean = crystals()
    noise = noise_for(clean)
    zero, one = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    untouched = FLOW.corrupt(clean, zero, zero, noise)
    torch.testing.assert_close(untouched.crystals.free_coords, clean.free_coords)
    torch.testing.assert_close(untouched.crystals.lattice_params, clean.lattice_params)
    assert float(untouched.displacements.abs().max()) == 0
    end, prior = FLOW.corrupt(clean, one, one, noise), FLOW.prior(clean, noise)
    torch.testing.assert_close(end.crystals.lattice_params, prior.lattice_params)
    away = log_map(end.crystals, prior.free_coords, lattices=prior.lattices())
    assert float(without_drift(prior, away).abs().max()) < 1e-9


@pytest.mark.parametrize("steps", [1, 7, 40])
def test_a_denoiser_that_knows_the_answer_reaches_it(steps: int) -> None:
    clean = crystals()

    def oracle(noisy: CrystalBatch, coord_time: Tensor, lattice_time: Tensor) -> Guess:
        delta = log_map(noisy, clean.free_coords, lattices=noisy.lattices())
        vectors = cartesian_from_coords(noisy, delta, lattices=noisy.lattices())
        unit = noisy.volume_per_atom ** (1 / 3)
        return Guess(vectors / unit[noisy.orbit_to_crystal][:, None], clean.lattice_params)

    found = FLOW.sample(clean, oracle, noise=noise_for(clean, 1), steps=steps)
    torch.testing.assert_close(found.lattice_params, clean.lattice_params)
    assert float(log_map(found, clean.free_coords, lattices=clean.lattices()).abs().max()) < 1e-9


def test_the_exact_denoiser_of_gaussian_lattices_samples_their_distribution() -> None:
    """Data N(m, s^2), noise N(mu, sigma^2): the posterior mean of the clean end is known in closed form."""
    m, s, mu, sigma = 1.9, 0.05, 1.6, 0.2
    one = Crystal(225, np.array([1.5]), np.array([0]), np.array([29]), np.zeros((1, 3)))
    batch = CrystalBatch.cat([CrystalBatch.from_crystals([one])] * 4000)

    def posterior_mean(noisy: CrystalBatch, coord_time: Tensor, lattice_time: Tensor) -> Guess:
        t = lattice_time
        variance = (1 - t) ** 2 * s**2 + t**2 * sigma**2
        gain = (1 - t) * s**2 / variance
        clean = m + gain * (noisy.lattice_params[:, 0] - (1 - t) * m - t * mu)
        return Guess(torch.zeros(len(noisy), 3), torch.nn.functional.pad(clean[:, None], (0, 5)))

    found = FLOW.sample(batch, posterior_mean, noise=noise_for(batch), steps=200).lattice_params[:, 0]
    assert float(found.mean()) == pytest.approx(m, abs=4 * s / 4000**0.5)
    assert float(found.std()) == pytest.approx(s, rel=0.06)


def test_losses_vanish_for_the_right_answer_only_and_weigh_atoms() -> None:
    clean = crystals()
    t = torch.full((3,), 0.5, dtype=torch.float64)
    noisy = FLOW.corrupt(clean, t, t, noise_for(clean))
    coords, lattice = geometry_losses(
        FLOW, Guess(noisy.displacements, clean.lattice_params), noisy, clean, t, t
    )
    assert float(coords.abs().max() + lattice.abs().max()) == 0
    wrong = noisy.displacements + torch.tensor([0.1, 0, 0])
    coords, _ = geometry_losses(FLOW, Guess(wrong, clean.lattice_params), noisy, clean, t, t)
    # in rutile two atoms of six are fixed: their error does not count
    assert float(coords[0]) == pytest.approx(0.01 * 4 / 6 / 0.55**2)
    assert float(coords[1]) == pytest.approx(0.01 / 0.55**2)


def test_one_stream_per_crystal_gives_the_same_noise_in_any_batch() -> None:
    batch = crystals()

    def streams(indices: list[int]) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(100 + i) for i in indices]

    together = GeometryNoise.draw_by_crystal(batch, streams([0, 1, 2]))
    alone = GeometryNoise.draw_by_crystal(batch[1], streams([1]))
    torch.testing.assert_close(together.normals[1:2], alone.normals, rtol=0, atol=0)
    torch.testing.assert_close(together.uniforms[2:5], alone.uniforms, rtol=0, atol=0)
