"""The wrapped normal against theta functions, sums over all copies, finite differences, the uniform distribution."""

from __future__ import annotations

import itertools
import math

import mpmath
import numpy as np
import pytest
import torch
from one_orbit import POSITIONS, one_orbit
from scipy.special import logsumexp

from nucleate.crystal import Crystal, CrystalBatch
from nucleate.processes.wrapped_normal import (
    normal_coords,
    normals_of_uniforms,
    reference_lattices,
    widest_noise,
    wrapped_posterior,
)
from nucleate.processes.wyckoff_torus import orbit_copies, period_vectors

LINES = [
    (n, letter) for n, letter in POSITIONS if one_orbit(n, letter, np.zeros(3)).positions[0].num_free == 1
]


OTHERS = [
    (n, letter)
    for n, letter in [*POSITIONS, (205, "d"), (227, "g")]
    if one_orbit(n, letter, np.zeros(3)).positions[0].num_free > 1
]


def copies_of(number: int, letter: str, count: int) -> CrystalBatch:
    crystal = one_orbit(number, letter, np.array([0.13, 0.27, 0.41]))
    return CrystalBatch.cat([CrystalBatch.from_crystals([crystal])] * count)


def spread(clean: CrystalBatch, seed: int = 0) -> CrystalBatch:
    used = torch.arange(3) < clean.num_free[:, None]
    generator = torch.Generator().manual_seed(seed)
    shape = clean.free_coords.shape
    return clean.replace(free_coords=torch.rand(shape, generator=generator, dtype=torch.float64) * used)


@pytest.mark.parametrize(("number", "letter"), LINES)
@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
def test_on_a_line_the_density_is_a_theta_function(number: int, letter: str, share: float) -> None:
    clean = copies_of(number, letter, 5)
    noisy = spread(clean)
    sigma = share * widest_noise(clean)
    found = wrapped_posterior(noisy, clean.free_coords, sigma).log_density
    period, _ = period_vectors(clean)
    basis = clean.tables["basis"][clean.position_ids]
    frame = reference_lattices(clean).mT @ basis
    length = torch.linalg.vector_norm((frame @ period)[:, :, 0], dim=1)
    copies = orbit_copies(noisy, clean.free_coords)
    for i in range(5):
        steps = copies.coefficients[copies.orbit == i, 0].tolist()
        nome = mpmath.exp(-2 * mpmath.pi**2 * (float(sigma[i]) / float(length[i])) ** 2)
        exact = mpmath.fsum(mpmath.jtheta(3, mpmath.pi * x, nome) for x in steps) / len(steps)
        if exact > 1e-9:  # far out in the tail the sum over copies within reach is not meant to be exact
            assert float(found[i]) == pytest.approx(float(mpmath.log(exact)), abs=3e-5)


def all_copies(clean: Crystal, reach: int) -> np.ndarray:
    """Points of the orbit on the plane, or in the space, of its representative, from translations up to a reach."""
    position = clean.positions[0]
    shifts = np.array(list(itertools.product(range(-reach, reach + 1), repeat=3)), dtype=float)
    shifts = (shifts[:, None] + clean.group.centring_vectors).reshape(-1, 3)
    projector = position.basis @ np.linalg.pinv(position.basis)
    away = (clean.image_coords()[:, None] + shifts).reshape(-1, 3) - position.origin
    return away[np.abs(away @ projector.T - away).max(axis=1) < 1e-9] + position.origin


def brute_force(clean: Crystal, free: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """(ln p relative to the uniform density, distance to the nearest copy in units of sigma) by adding up all copies.

    The density of copies is that of the maps over the volume of the period cell.
    """
    position, d = clean.positions[0], clean.positions[0].num_free
    cell = clean.group.lattice_subspace.reference * position.multiplicity ** (1 / 3)
    reach = 3 + math.ceil(6 * sigma * np.linalg.norm(np.linalg.inv(cell), axis=0).max())
    points = free[:, :d] @ position.basis.T + position.origin
    copies = all_copies(clean, reach)
    squares = np.array([(((copies - point) @ cell) ** 2).sum(axis=1) for point in points])
    periods = cell.T @ position.basis @ position.period_lattice
    volume = math.sqrt(np.linalg.det(periods.T @ periods)) / len(position.identification_linear)
    front = math.log(volume) - d / 2 * math.log(2 * math.pi * sigma**2)
    return front + logsumexp(-squares / (2 * sigma**2), axis=1), np.sqrt(squares.min(axis=1)) / sigma


@pytest.mark.parametrize(("number", "letter"), OTHERS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1.0])
def test_in_planes_and_in_space_the_density_adds_up_all_copies(
    number: int, letter: str, share: float
) -> None:
    """Over modes at any distance, over copies as far as noise gets; 5 % more noise is told apart."""
    clean = copies_of(number, letter, 24)
    sigma = share * widest_noise(clean)
    normals = torch.randn(
        clean.free_coords.shape, generator=torch.Generator().manual_seed(8), dtype=torch.float64
    )
    near = clean.free_coords + 1.3 * sigma[:, None] * normal_coords(clean, normals)
    noisy = spread(clean, 9)
    noisy = clean.replace(
        free_coords=torch.where(torch.arange(24)[:, None] < 12, noisy.free_coords, near % 1)
    )
    found = wrapped_posterior(noisy, clean.free_coords, sigma).log_density.numpy()
    crystal = clean[0].to_crystals()[0]
    exact, distance = brute_force(crystal, noisy.free_coords.numpy(), float(sigma[0]))
    assert np.abs(found - exact)[distance < 3].max() < 3e-5
    assert np.abs(found - exact)[distance < 4].max() < 2e-4
    if share < 0.5:
        other, _ = brute_force(crystal, noisy.free_coords.numpy(), 1.05 * float(sigma[0]))
        assert np.abs(found - other)[distance < 3].max() > 0.05


@pytest.mark.parametrize(("number", "letter"), POSITIONS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_the_displacement_is_the_slope_of_the_log_density(number: int, letter: str, share: float) -> None:
    """``grad_u log p = G displacement / sigma^2``, by central differences; a tenth more noise is told apart."""
    clean = copies_of(number, letter, 6)
    sigma = share * widest_noise(clean)
    noisy = clean.replace(free_coords=clean.free_coords + sigma[:, None] * normal_coords(clean, torch.randn(
        clean.free_coords.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)))  # fmt: skip
    back = wrapped_posterior(noisy, clean.free_coords, sigma).displacement
    frame = reference_lattices(clean).mT @ clean.tables["basis"][clean.position_ids]
    slope = (frame.mT @ frame @ back[:, :, None])[:, :, 0] / sigma[:, None] ** 2
    step = 1e-5
    numerical = torch.zeros_like(slope)
    for axis in range(int(clean.num_free[0])):
        shift = torch.zeros(3, dtype=torch.float64)
        shift[axis] = step
        up, down = (
            wrapped_posterior(
                noisy.replace(free_coords=noisy.free_coords + s), clean.free_coords, sigma
            ).log_density
            for s in (shift, -shift)
        )
        numerical[:, axis] = (up - down) / (2 * step)
    scale = float(numerical.abs().max())
    assert float((slope - numerical).abs().max()) < 2e-3 * max(scale, 1e-2)
    if share < 0.5:  # where one copy counts alone, the way back is the way to it
        return
    other = wrapped_posterior(noisy, clean.free_coords, 1.1 * sigma).displacement
    assert float((other - back).abs().max()) > 1e-2 * float(back.abs().max())


@pytest.mark.parametrize(("number", "letter"), POSITIONS)
def test_the_widest_noise_is_uniform_along_every_period_and_half_of_it_is_not(
    number: int, letter: str
) -> None:
    clean = copies_of(number, letter, 8000)
    widest = widest_noise(clean)
    assert float(widest.min()) == float(widest.max())
    normals = torch.randn(
        clean.free_coords.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    period, used = period_vectors(clean)
    d = int(used[0].sum())
    dual = torch.linalg.inv(period[0, :d, :d])

    def modes(sigma: torch.Tensor) -> list[float]:
        """Twice the mean of exp(2 pi i k . u) for the shortest modes: the coefficient beside the uniform 1."""
        u = sigma[:, None] * normal_coords(clean, normals)
        inside = (u[:, :d] @ dual.T).numpy()
        vectors = [np.array(k) for k in itertools.product((-1, 0, 1), repeat=d) if any(k)]
        return [2 * abs(np.exp(2j * np.pi * (inside @ k)).mean()) for k in vectors]

    assert max(modes(widest)) < 1e-3 + 2 * 4.5 / math.sqrt(8000)
    assert max(modes(widest / 2)) > 0.2
    exact = wrapped_posterior(clean, clean.free_coords, widest).log_density
    assert float(exact[0]) < math.log1p(d * 1.05e-3)


def test_noise_is_the_same_for_every_atom_whatever_the_multiplicity() -> None:
    """Cartesian variance along each free direction is 1 in the reference metric, in a 1-fold and a 24-fold orbit."""
    for number, letter in ((99, "a"), (205, "d"), (194, "k")):
        clean = copies_of(number, letter, 8000)
        normals = torch.randn(
            clean.free_coords.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64
        )
        frame = reference_lattices(clean).mT @ clean.tables["basis"][clean.position_ids]
        moved = (frame @ normal_coords(clean, normals)[:, :, None])[:, :, 0]
        covariance = np.linalg.eigvalsh(np.cov(moved.numpy().T))
        d = int(clean.num_free[0])
        np.testing.assert_allclose(covariance[3 - d :], 1, rtol=0.05)
        np.testing.assert_allclose(covariance[: 3 - d], 0, atol=1e-9)


def test_normal_numbers_follow_from_uniform_ones() -> None:
    uniforms = torch.tensor([[0.0, 0.5, 0.975]])
    assert torch.isfinite(normals_of_uniforms(uniforms)).all()
    assert float(normals_of_uniforms(uniforms)[0, 1]) == 0
    assert float(normals_of_uniforms(uniforms)[0, 2]) == pytest.approx(1.959964, abs=1e-4)
