"""Diffusion of lattices and coordinates: known marginals, exact denoisers, calibrated samples, wrong scores seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from folded_normal import FoldedNormal, folded
from one_orbit import one_orbit
from scipy.stats import kstest, norm
from torch import Tensor

from nucleate.crystal import Crystal, CrystalBatch
from nucleate.errors import ConfigError
from nucleate.processes.geometry_diffusion import GeometryDiffusion
from nucleate.processes.geometry_flow import GeometryFlow
from nucleate.processes.geometry_process import GeometryNoise, geometry_losses
from nucleate.processes.level_table import LevelTable
from nucleate.processes.sampler import GivenGeometry, sample_geometry
from nucleate.processes.schedule import CosineSchedule
from nucleate.processes.wrapped_normal import normal_coords, reference_lattices, wrapped_posterior
from nucleate.processes.wyckoff_torus import cartesian_from_coords, log_map, orbit_copies

STATS = (torch.tensor([1.6, 0.2, 0, 0, 0, 0]), torch.tensor([0.2, 0.4, 0.4, 0.2, 0.2, 0.2]))
DIFFUSION, FLOW = GeometryDiffusion(*STATS), GeometryFlow(*STATS)
MEAN, SPREAD = 1.9, 0.05  # of the clean first lattice parameter
WIDTH = 0.12  # of the clean coordinates, in units of (volume per atom)^(1/3)
COUNT = 500


@dataclass
class Guess:
    displacements: Tensor
    lattice_params: Tensor


def batch_of(crystal: Crystal, count: int = COUNT) -> CrystalBatch:
    return CrystalBatch.cat([CrystalBatch.from_crystals([crystal])] * count)


def noise_for(batch: CrystalBatch, seed: int = 0) -> GeometryNoise:
    return GeometryNoise.draw(batch, torch.Generator().manual_seed(seed))


def streams(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(1000 + i) for i in range(count)]


class ExactDenoiser:
    """Posterior means where lattices are normal about MEAN and coordinates wrapped normal about a centre."""

    def __init__(
        self, centre: CrystalBatch, *, coord_factor: float = 1.0, lattice_factor: float = 1.0
    ) -> None:
        self.centre, self.coord_factor, self.lattice_factor = centre, coord_factor, lattice_factor

    def __call__(self, noisy: CrystalBatch, coord_level: Tensor, lattice_level: Tensor) -> Guess:
        own = DIFFUSION.lattice.to(noisy.lattice_params)
        level = lattice_level
        scale = torch.rsqrt((1 - level) ** 2 + level**2)
        alpha, sigma = scale * (1 - level), scale * level * own.std[0]
        variance = alpha**2 * SPREAD**2 + sigma**2
        away = noisy.lattice_params[:, 0] - own.mean[0] - alpha * (MEAN - own.mean[0])
        clean = MEAN + alpha * SPREAD**2 / variance * away
        params = noisy.lattice_params.clone()
        params[:, 0] += self.lattice_factor * (clean - params[:, 0])
        width = coord_level / (1 - coord_level)
        total = torch.sqrt(width**2 + WIDTH**2)
        back = wrapped_posterior(noisy, self.centre.free_coords, total).displacement
        back = back * (self.coord_factor * width**2 / total**2)[noisy.orbit_to_crystal][:, None]
        vectors = cartesian_from_coords(noisy, back, lattices=noisy.lattices())
        unit = noisy.volume_per_atom ** (1 / 3)
        return Guess(vectors / unit[noisy.orbit_to_crystal][:, None], params)


def quantiles(found: CrystalBatch, centre: Crystal) -> np.ndarray:
    """Where each coordinate lies in the clean distribution about a crystal on 221e, from 0 to 1."""
    cell = reference_lattices(CrystalBatch.from_crystals([centre]))[0, 0, 0]
    target = FoldedNormal(centre.free_coords[0, 0], WIDTH / float(cell))
    return target.cdf(folded(found.free_coords[:, 0])).numpy()


LINE = one_orbit(136, "f", np.array([0.29, 0, 0]))  # x,x,0 of rutile: one coordinate, one lattice elongation
# x,0,0 of a cubic cell, where u and -u are one orbit: they are six widths from each other, or 1.5, so that a fifth of
# the normal distribution is folded back
CUBIC_LINE, NEAR_ITSELF = (one_orbit(221, "e", np.array([u, 0, 0])) for u in (0.21, 0.05))


@pytest.mark.parametrize("crystal", [CUBIC_LINE, NEAR_ITSELF])
@pytest.mark.parametrize(
    ("solver", "steps"), [("ddim", 50), ("heun", 40), ("multistep", 30), ("ancestral", 80), ("sde", 80)]
)
def test_the_exact_score_samples_the_distribution(solver: str, steps: int, crystal: Crystal) -> None:
    centre = batch_of(crystal)
    found = sample_geometry(
        DIFFUSION, centre, ExactDenoiser(centre), noise=noise_for(centre), steps=steps, solver=solver,
        schedule=CosineSchedule(), streams=streams(COUNT),
    )  # fmt: skip
    assert kstest(found.lattice_params[:, 0].numpy(), norm(MEAN, SPREAD).cdf).pvalue > 1e-3
    assert kstest(quantiles(found, crystal), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("crystal", [CUBIC_LINE, NEAR_ITSELF])
@pytest.mark.parametrize("wrong", ["coord_factor", "lattice_factor"])
def test_a_wrong_score_does_not(wrong: str, crystal: Crystal) -> None:
    centre = batch_of(crystal)
    denoiser = ExactDenoiser(centre, **{wrong: 0.6})
    found = sample_geometry(DIFFUSION, centre, denoiser, noise=noise_for(centre), steps=40)
    lattice = kstest(found.lattice_params[:, 0].numpy(), norm(MEAN, SPREAD).cdf).pvalue
    coords = kstest(quantiles(found, crystal), "uniform").pvalue
    assert (coords if wrong == "coord_factor" else lattice) < 1e-6


def test_with_the_learned_variance_few_ancestral_steps_have_the_right_spread() -> None:
    """The mean square error of the exact guess is known, so four steps are as good as many; without it they are not."""
    batch = batch_of(Crystal(225, np.array([1.5]), np.array([0]), np.array([29]), np.zeros((1, 3))), 6000)
    table = LevelTable(6)
    level = torch.linspace(0, 1, 20001, dtype=torch.float64)
    std = float(STATS[1][0])
    variance = (1 - level) ** 2 * SPREAD**2 + level**2 * std**2
    error = (SPREAD**2 * level**2 * std**2 / variance / std**2)[:, None].expand(-1, 6)
    for _ in range(3):
        table.add(*table.bin_sums(level, error, torch.ones_like(error, dtype=torch.bool)))
    spreads = {}
    for name, learned in (("learned", table), ("plain", None)):
        found = sample_geometry(
            DIFFUSION, batch, ExactDenoiser(batch), noise=noise_for(batch), steps=4, solver="ancestral",
            streams=streams(6000), lattice_variance=learned,
        )  # fmt: skip
        spreads[name] = float(found.lattice_params[:, 0].std())
    assert spreads["learned"] == pytest.approx(SPREAD, rel=0.06)
    assert spreads["plain"] < 0.8 * SPREAD


@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
def test_noisy_lattices_have_the_known_mean_and_spread(level: float) -> None:
    generator = torch.Generator().manual_seed(4)
    clean = batch_of(LINE, 4000)
    params = clean.lattice_params.clone()
    params[:, 0] = MEAN + SPREAD * torch.randn(4000, generator=generator, dtype=torch.float64)
    clean = clean.replace(lattice_params=params)
    levels = torch.full((4000,), level, dtype=torch.float64)
    noisy = DIFFUSION.corrupt(clean, levels, levels, noise_for(clean)).crystals.lattice_params[:, 0]
    scale = 1 / np.hypot(1 - level, level)
    alpha, sigma, mu, std = scale * (1 - level), scale * level, float(STATS[0][0]), float(STATS[1][0])
    expected = norm(mu + alpha * (MEAN - mu), np.hypot(alpha * SPREAD, sigma * std))
    assert kstest(noisy.numpy(), expected.cdf).pvalue > 1e-3
    assert kstest(noisy.numpy(), norm(mu, expected.std()).cdf).pvalue < 1e-3 or level > 0.8


@pytest.mark.parametrize("crystal", [LINE, CUBIC_LINE, one_orbit(62, "c", np.array([0.1, 0.3, 0]))])
@pytest.mark.parametrize("level", [0.15, 0.6])
def test_the_exact_denoiser_has_the_least_loss(crystal: Crystal, level: float) -> None:
    """Denoising score matching: what is learned from noised samples is the score of their distribution."""
    centre = batch_of(crystal, 4000)
    normals = torch.randn(len(centre), 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    clean = centre.replace(free_coords=centre.free_coords + WIDTH * normal_coords(centre, normals))
    levels = torch.full((len(centre),), level, dtype=torch.float64)
    noisy = DIFFUSION.corrupt(clean, levels, levels, noise_for(clean, 6))
    told = DIFFUSION.told_level(clean, levels)

    def loss(factor: float) -> float:
        guess = ExactDenoiser(centre, coord_factor=factor)(noisy.crystals, told, levels)
        return float(geometry_losses(DIFFUSION, guess, noisy, clean, levels, levels)[0].mean())

    assert loss(1.0) < min(loss(0.7), loss(1.3))
    assert loss(1.0) < loss(0.0)


def test_level_zero_is_the_data_and_one_is_uniform() -> None:
    clean = batch_of(LINE, 2000)
    zero, one = torch.zeros(2000, dtype=torch.float64), torch.ones(2000, dtype=torch.float64)
    untouched = DIFFUSION.corrupt(clean, zero, zero, noise_for(clean))
    torch.testing.assert_close(untouched.crystals.free_coords, clean.free_coords)
    torch.testing.assert_close(untouched.crystals.lattice_params, clean.lattice_params)
    end = DIFFUSION.corrupt(clean, one, one, noise_for(clean)).crystals
    copies = orbit_copies(end, clean.free_coords)
    assert kstest(copies.coefficients[:, 0].numpy() + 0.5, "uniform").pvalue > 1e-3
    assert float(DIFFUSION.told_level(clean, one).max()) < 1


@pytest.mark.parametrize("process", [FLOW, DIFFUSION])
@pytest.mark.parametrize("solver", ["ddim", "heun", "multistep", "ancestral", "sde"])
def test_a_denoiser_that_knows_the_answer_reaches_it(process, solver: str) -> None:
    clean = CrystalBatch.from_crystals([LINE, CUBIC_LINE, one_orbit(62, "d", np.array([0.1, 0.3, 0.6]))])

    def oracle(noisy: CrystalBatch, coord_level: Tensor, lattice_level: Tensor) -> Guess:
        delta = log_map(noisy, clean.free_coords, lattices=noisy.lattices())
        vectors = cartesian_from_coords(noisy, delta, lattices=noisy.lattices())
        unit = noisy.volume_per_atom ** (1 / 3)
        return Guess(vectors / unit[noisy.orbit_to_crystal][:, None], clean.lattice_params)

    settings = {"noise": noise_for(clean, 1), "steps": 30, "solver": solver, "streams": streams(3)}
    if process is FLOW and solver in ("ancestral", "sde"):
        with pytest.raises(
            ConfigError, match="use ddim, heun or multistep, or train with process: diffusion"
        ):
            sample_geometry(process, clean, oracle, **settings)
        return
    passes: list[int] = []
    found = sample_geometry(process, clean, oracle, on_step=lambda: passes.append(1), **settings)
    torch.testing.assert_close(found.lattice_params, clean.lattice_params)
    assert float(log_map(found, clean.free_coords, lattices=clean.lattices()).abs().max()) < 1e-9
    assert len(passes) == (29 if solver == "heun" else 30)
    with pytest.raises(ConfigError, match="one random stream per crystal"):
        sample_geometry(DIFFUSION, clean, oracle, noise=noise_for(clean), solver="sde")


@pytest.mark.parametrize("process", [FLOW, DIFFUSION])
def test_given_parts_stay_as_they_are_and_the_denoiser_is_told(process) -> None:
    two = Crystal(136, np.array([1.45, -0.3]), np.array([0, 5, 5]), np.array([22, 8, 9]),
                  np.array([[0, 0, 0], [0.305, 0, 0], [0.1, 0, 0]]))  # fmt: skip
    clean = CrystalBatch.from_crystals([two, two, two])
    told: list[tuple[Tensor, Tensor, Tensor]] = []

    def watching(noisy: CrystalBatch, coord_level: Tensor, lattice_level: Tensor) -> Guess:
        told.append((coord_level, lattice_level, noisy.free_coords.clone()))
        return Guess(torch.zeros(len(noisy.position_ids), 3), noisy.lattice_params)

    known = torch.tensor([False, True, False] + [False] * 3 + [False, True, True])
    given = GivenGeometry(clean.lattice_params, torch.tensor([False, True, False]), clean.free_coords, known)
    found = sample_geometry(process, clean, watching, noise=noise_for(clean), steps=4, given=given)
    assert torch.equal(found.free_coords[known], clean.free_coords[known])
    assert torch.equal(found.lattice_params[1], clean.lattice_params[1])
    assert not torch.equal(found.lattice_params[0], clean.lattice_params[0])
    for coord_level, lattice_level, coords in told:
        assert float(coord_level[2]) == 0  # everything that moves is given
        assert float(coord_level[0]) > 0
        assert float(lattice_level[1]) == 0
        assert torch.equal(coords[7:9], clean.free_coords[7:9])
    assert not torch.equal(told[0][2][1], clean.free_coords[1])  # one of two: at the level of the other


def test_the_flow_by_euler_steps_is_what_it_always_was() -> None:
    """Weights that are out in the world mean this loop, bit for bit."""
    clean = CrystalBatch.from_crystals([LINE, CUBIC_LINE]).to(dtype=torch.float32)
    noise = noise_for(clean)

    def denoiser(noisy: CrystalBatch, coord_level: Tensor, lattice_level: Tensor) -> Guess:
        vectors = cartesian_from_coords(
            noisy, torch.full_like(noisy.free_coords, 0.01), lattices=noisy.lattices()
        )
        return Guess(
            vectors * torch.cos(coord_level)[:, None], noisy.lattice_params * 0.9 + 0.1 * clean.lattice_params
        )

    x = FLOW.prior(clean, noise)
    times = torch.linspace(1, 0, 8)
    for k in range(7):
        now, then = float(times[k]), float(times[k + 1])
        time = torch.full((2,), now, dtype=x.dtype)
        x = FLOW.step(x, denoiser(x, time, time), fraction=(now - then) / now)
    found = sample_geometry(FLOW, clean, denoiser, noise=noise, steps=7)
    assert torch.equal(found.free_coords, x.free_coords)
    assert torch.equal(found.lattice_params, x.lattice_params)
