"""The flow against closed forms: a known answer is reached, exact denoisers sample known lattices and coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from folded_normal import HALF, FoldedNormal, folded
from one_orbit import one_orbit
from scipy.stats import kstest
from torch import Tensor

from nucleate.crystal import Crystal, CrystalBatch
from nucleate.processes.geometry_flow import GeometryFlow
from nucleate.processes.geometry_process import GeometryNoise, geometry_losses
from nucleate.processes.sampler import sample_geometry
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


LINE = one_orbit(221, "e", np.array([0.21, 0, 0]))  # x,0,0 of a cubic cell: u and -u are one orbit
NARROW, WRAPPING = FoldedNormal(0.21, 0.05), FoldedNormal(0.1, 0.15)
"""Folded at neither end of the cell, and a quarter of it at 0."""


def lines(count: int = 500) -> CrystalBatch:
    return CrystalBatch.cat([CrystalBatch.from_crystals([LINE])] * count)


class ExactDenoiser:
    """Mean of the clean coordinate of 221e, a ``FoldedNormal``, given the noisy one.

    Given x_0, the noisy y is uniform on [(1 - t) x_0, (1 - t) x_0 + t HALF], so that given y the clean x_0 is the
    target between (y - t HALF) / (1 - t) and y / (1 - t).
    """

    def __init__(self, target: FoldedNormal, *, factor: float = 1.0) -> None:
        self.target, self.factor = target, factor

    def __call__(self, noisy: CrystalBatch, coord_level: Tensor, lattice_level: Tensor) -> Guess:
        u = noisy.free_coords[:, 0]
        y, rest = folded(u), (1 - coord_level).clamp(min=1e-9)
        low, high = ((y - coord_level * HALF) / rest).clamp(min=0), (y / rest).clamp(max=HALF)
        away = self.factor * (self.target.mean_between(low, high) - y) * torch.sign(u - u.round())
        change = torch.nn.functional.pad(away[:, None], (0, 2))
        vectors = cartesian_from_coords(noisy, change, lattices=noisy.lattices())
        return Guess(vectors / noisy.length_unit[noisy.orbit_to_crystal][:, None], noisy.lattice_params)


@pytest.mark.parametrize("level", [0.2, 0.6, 0.95])
def test_a_noisy_coordinate_is_uniform_on_its_part_of_the_folded_cell(level: float) -> None:
    """It is a mean of the clean one and of the folded end, which is uniform; ways that do not fold end elsewhere."""
    clean = lines()
    levels, noise = torch.full((len(clean),), level, dtype=torch.float64), noise_for(clean)
    noisy = folded(FLOW.corrupt(clean, levels, levels, noise).crystals.free_coords[:, 0])
    begin, end = clean.free_coords[:, 0], noise.uniforms[:, 0]
    torch.testing.assert_close(noisy, (1 - level) * begin + level * folded(end))
    away = end - begin
    unfolded = folded(begin + level * (away - away.round()))
    assert float(((noisy - unfolded).abs() > 1e-3).double().mean()) > 0.3


@pytest.mark.parametrize("level", [0.15, 0.5, 0.8])
@pytest.mark.parametrize("target", [NARROW, WRAPPING])
def test_the_exact_denoiser_of_coordinates_has_the_least_loss(target: FoldedNormal, level: float) -> None:
    """What is learned from noised samples is the mean of the clean end, by the same closed form."""
    generator = torch.Generator().manual_seed(5)
    clean = lines(4000)
    clean = clean.replace(
        free_coords=torch.nn.functional.pad(target.sample(len(clean), generator)[:, None], (0, 2))
    )
    levels = torch.full((len(clean),), level, dtype=torch.float64)
    noisy = FLOW.corrupt(clean, levels, levels, noise_for(clean, 6))

    def loss(factor: float) -> float:
        guess = ExactDenoiser(target, factor=factor)(noisy.crystals, levels, levels)
        return float(geometry_losses(FLOW, guess, noisy, clean, levels, levels)[0].mean())

    assert loss(1.0) < min(loss(0.8), loss(1.2))


@pytest.mark.parametrize(("solver", "steps"), [("ddim", 100), ("heun", 60), ("multistep", 60)])
@pytest.mark.parametrize("target", [NARROW, WRAPPING])
def test_the_exact_denoiser_of_coordinates_samples_their_distribution(
    target: FoldedNormal, solver: str, steps: int
) -> None:
    """On a line the probability flow also keeps the order: each crystal ends at the quantile it begins at."""
    batch, noise = lines(), noise_for(lines())
    begin = folded(noise.uniforms[:, 0]) / HALF
    quantiles = {}
    for factor in (1.0, 0.7):
        denoiser = ExactDenoiser(target, factor=factor)
        found = sample_geometry(FLOW, batch, denoiser, noise=noise, steps=steps, solver=solver)
        quantiles[factor] = target.cdf(folded(found.free_coords[:, 0]))
    assert kstest(quantiles[1.0].numpy(), "uniform").pvalue > 1e-3
    assert float((quantiles[1.0] - begin).abs().max()) < 0.015
    assert kstest(quantiles[0.7].numpy(), "uniform").pvalue < 1e-8
    assert float((quantiles[0.7] - begin).abs().max()) > 0.1


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
