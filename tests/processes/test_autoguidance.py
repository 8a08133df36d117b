"""Autoguidance and restarts against closed forms: Gaussian lattices, whose denoisers and flows are linear."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from nucleate.crystal import Crystal, CrystalBatch
from nucleate.processes.autoguidance import autoguided
from nucleate.processes.geometry_flow import GeometryFlow
from nucleate.processes.geometry_process import GeometryNoise
from nucleate.processes.sampler import sample_geometry

COUNT = 4000
MEAN, SPREAD, WIDE, NOISE = 1.6, 0.05, 0.15, 0.2
FLOW = GeometryFlow(torch.tensor([MEAN, 0, 0, 0, 0, 0]), torch.tensor([NOISE, 0.4, 0.4, 0.2, 0.2, 0.2]))
COPPER = Crystal(225, np.array([1.5]), np.array([0]), np.array([29]), np.zeros((1, 3)))


@dataclass
class Guess:
    displacements: Tensor
    lattice_params: Tensor


def batch() -> CrystalBatch:
    return CrystalBatch.cat([CrystalBatch.from_crystals([COPPER])] * COUNT)


def noise(seed: int = 0) -> GeometryNoise:
    return GeometryNoise.draw(batch(), torch.Generator().manual_seed(seed))


def gain(t: float | Tensor, spread: float) -> float | Tensor:
    """Slope of the posterior mean of N(mean, spread^2) seen through noise around the same mean."""
    return (1 - t) * spread**2 / ((1 - t) ** 2 * spread**2 + t**2 * NOISE**2)


def exact(spread: float) -> Callable[[CrystalBatch, Tensor, Tensor], Guess]:
    def denoise(noisy: CrystalBatch, coord_level: Tensor, lattice_level: Tensor) -> Guess:
        clean = MEAN + gain(lattice_level, spread) * (noisy.lattice_params[:, 0] - MEAN)
        return Guess(torch.zeros(len(noisy), 3), torch.nn.functional.pad(clean[:, None], (0, 5)))

    return denoise


@pytest.mark.parametrize("strength", [0.0, 0.5, 2.0])
def test_the_samples_have_the_spread_that_the_flow_of_the_combined_guess_gives(strength: float) -> None:
    """dx/dt = (x - D)/t with the linear D integrated by scipy; the more guidance, the narrower."""
    denoiser = autoguided(exact(SPREAD), exact(WIDE), strength)
    found = sample_geometry(FLOW, batch(), denoiser, noise=noise(), steps=200).lattice_params[:, 0]

    def rate(t: float) -> float:
        combined = gain(t, SPREAD) + strength * (gain(t, SPREAD) - gain(t, WIDE))
        return (1 - combined) / t

    expected = NOISE * np.exp(-quad(rate, 1e-9, 1)[0])
    assert float(found.std()) == pytest.approx(expected, rel=0.05)
    assert (expected < 0.9 * SPREAD) == (strength > 0)
    assert float(found.mean()) == pytest.approx(MEAN, abs=5 * expected / COUNT**0.5)


def test_without_strength_it_is_the_denoiser_itself() -> None:
    alone = exact(SPREAD)
    assert autoguided(alone, exact(WIDE), 0.0) is alone


@pytest.mark.parametrize("spread_before", [0.0, SPREAD, 0.2])
def test_a_restart_leaves_the_distribution_and_brings_others_nearer_to_it(spread_before: float) -> None:
    """Noise of level t and the exact flow back: v -> s^2 ((1-t)^2 v + t^2 n^2) / ((1-t)^2 s^2 + t^2 n^2)."""
    t = 0.5
    before = batch()
    params = before.lattice_params.clone()
    params[:, 0] = MEAN + spread_before * torch.randn(COUNT, generator=torch.Generator().manual_seed(3))
    level = torch.full((COUNT,), t, dtype=torch.float64)
    noisy = FLOW.corrupt(before.replace(lattice_params=params), level, level, noise(1)).crystals

    def spread_after(start_level: float) -> float:
        after = sample_geometry(
            FLOW, before, exact(SPREAD), noise=noise(1), start=noisy, start_level=start_level, steps=200
        )
        return float(after.lattice_params[:, 0].std())

    def seen(v: float) -> float:
        return (1 - t) ** 2 * v**2 + t**2 * NOISE**2

    expected = SPREAD * (seen(spread_before) / seen(SPREAD)) ** 0.5
    assert spread_after(t) == pytest.approx(expected, rel=0.05)
    assert abs(expected - SPREAD) <= 0.7 * abs(spread_before - SPREAD)
    # negative control: told another level, the way back ends somewhere else
    assert abs(spread_after(0.9) / expected - 1) > 0.2
