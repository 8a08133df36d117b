"""Solvers, schedules and paths against Gaussian data, where every step can be worked out by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import norm

from nucleate.errors import ConfigError
from nucleate.processes.level_table import LevelTable
from nucleate.processes.noise_path import path_scale, signal_and_noise
from nucleate.processes.schedule import CosineSchedule, LearnedSchedule, LinearSchedule, make_schedule
from nucleate.processes.solver import SOLVERS, find_solver, ode_move, sde_move

SPREAD, SHIFT = 0.3, 0.8  # data N(SHIFT, SPREAD^2), noise N(0, 1)


def _level(value: float) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float64)


def _guess(level: float) -> tuple[float, float]:
    """(gain, offset) of the exact mean of the clean end, ``gain X + offset``."""
    variance = (1 - level) ** 2 * SPREAD**2 + level**2
    gain = (1 - level) * SPREAD**2 / variance
    return gain, SHIFT * (1 - gain * (1 - level))


def _moments(name: str, steps: int) -> tuple[float, float]:
    """Exact (mean, standard deviation) of what a solver makes, by propagating the moments of (X, last guess)."""
    solver = find_solver(name)
    make = sde_move if solver.stochastic else ode_move
    levels = np.linspace(1, 0, steps + 1)
    mean, cov = np.zeros(2), np.diag([1.0, 0.0])  # of X and the guess before
    for k, (now, then) in enumerate(pairwise(levels)):
        move = make(_level(now), _level(then))
        drift = 0.0 if move.drift is None else float(move.drift)
        pull, lean, jitter = float(move.pull), float(move.lean), float(move.jitter)
        gain, offset = _guess(now)
        # rows: new X, new guess; columns: X, old guess
        row, constant = np.array([1 + drift - pull + pull * gain, 0.0]), pull * offset
        if name in ("multistep", "sde") and k > 0:
            width = now - levels[k - 1]
            row = row + lean / width * np.array([gain, -1.0])
            constant += lean / width * offset
        if solver.corrects and then > 0:
            ahead, ahead_offset = _guess(then)
            width = then - now
            row = row + lean / width * (ahead * row - np.array([gain, 0.0]))
            constant += lean / width * (ahead * constant + ahead_offset - offset)
        matrix = np.array([row, [gain, 0.0]])
        mean = matrix @ mean + np.array([constant, offset])
        cov = matrix @ cov @ matrix.T + np.diag([jitter**2, 0.0])
    return float(mean[0]), float(np.sqrt(cov[0, 0]))


@pytest.mark.parametrize("name", SOLVERS)
def test_solvers_converge_in_their_order(name: str) -> None:
    errors = []
    for steps in (20, 40, 80, 160):
        mean, std = _moments(name, steps)
        errors.append(abs(mean - SHIFT) + abs(std - SPREAD))
    rates = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert rates[-1] == pytest.approx(SOLVERS[name].order, abs=0.3)
    assert errors[-1] < (2e-2 if SOLVERS[name].order == 1 else 3e-3)


def test_a_wrong_score_is_not_forgiven() -> None:
    """With the guess halfway to the noisy point, no number of steps gives the data."""
    x = torch.randn(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for factor, right in ((1.0, True), (0.7, False)):
        y, levels = x.clone(), np.linspace(1, 0, 201)
        for now, then in pairwise(levels):
            gain, offset = _guess(now)
            guess = y + factor * (gain * y + offset - y)
            y = y + ode_move(_level(now), _level(then)).pull * (guess - y)
        statistic = np.abs(np.sort(norm.cdf(y.numpy(), SHIFT, SPREAD)) - (np.arange(4000) + 0.5) / 4000).max()
        assert (statistic < 1.63 / 4000**0.5 + 0.01) == right


def test_a_guess_that_is_linear_in_the_level_is_followed_exactly() -> None:
    """``dX/dl = (X - D(l)) / l`` with D = 2 + 3 l, integrated by hand from level 0.9 to 0.2."""
    now, then = 0.9, 0.2
    move = ode_move(_level(now), _level(then))
    x, guess, rate = 5.0, 2 + 3 * now, 3.0
    found = x + float(move.pull) * (guess - x) + float(move.lean) * rate
    # X = A l + 2 - 3 l ln(l) solves it
    a = (x - 2 + 3 * now * np.log(now)) / now
    assert found == pytest.approx(a * then + 2 - 3 * then * np.log(then))


def test_an_ancestral_step_is_the_posterior_of_two_gaussians() -> None:
    """q(x_s | x_t, x_0) by conditioning the joint normal of (x_s, x_t) given x_0, on the straight path."""
    now, then, clean, x = 0.7, 0.4, 1.3, 0.2
    ratio = (1 - now) / (1 - then)
    cov = np.array([[then**2, ratio * then**2], [ratio * then**2, now**2]])
    mean = (1 - then) * clean + cov[0, 1] / cov[1, 1] * (x - (1 - now) * clean)
    variance = cov[0, 0] - cov[0, 1] ** 2 / cov[1, 1]
    move = sde_move(_level(now), _level(then))
    assert move.drift is not None
    assert float(x + move.drift * x + move.pull * (clean - x)) == pytest.approx(mean)
    assert float(move.jitter) ** 2 == pytest.approx(variance)


def test_paths_agree_on_the_ratio_of_signal_to_noise() -> None:
    level = torch.linspace(0.05, 0.9, 9, dtype=torch.float64)
    for path in ("straight", "preserving", "exploding"):
        alpha, sigma = signal_and_noise(path, level)
        torch.testing.assert_close(alpha / sigma, (1 - level) / level)
    alpha, sigma = signal_and_noise("preserving", level)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(level))
    torch.testing.assert_close(signal_and_noise("exploding", level)[0], torch.ones_like(level))
    assert float(path_scale("straight", level).std()) == 0


@pytest.mark.parametrize("name", ["linear", "cosine", "learned"])
def test_schedules_are_monotone_and_know_their_slope(name: str) -> None:
    table = LevelTable(1)
    levels = torch.rand(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    loss = 0.1 + 3 * torch.exp(-(((levels - 0.3) / 0.1) ** 2))[:, None]
    table.add(*table.bin_sums(levels, loss, torch.ones_like(loss, dtype=torch.bool)))
    schedule = make_schedule(name, table)
    time = torch.linspace(0, 1, 1001, dtype=torch.float64)
    level = schedule.level(time)
    assert float(level[0]) == 0
    assert float(level[-1]) == 1
    assert float(level.diff().min()) > 0
    middle = (time[1:] + time[:-1]) / 2
    numerical = level.diff() * 1000
    close = (schedule.slope(middle) - numerical).abs() / numerical < 0.02
    assert float(close.double().mean()) > 0.95  # the learned one has corners


def test_cosine_and_sine_share_the_cosine_schedule() -> None:
    time = torch.tensor([0.25], dtype=torch.float64)
    alpha, sigma = signal_and_noise("preserving", CosineSchedule().level(time))
    assert float(alpha) == pytest.approx(np.cos(np.pi / 8))
    assert float(sigma) == pytest.approx(np.sin(np.pi / 8))


def test_a_learned_schedule_spreads_the_loss_evenly_and_keeps_its_mean() -> None:
    def loss(level: torch.Tensor) -> torch.Tensor:
        return 0.1 + 3 * torch.exp(-(((level - 0.3) / 0.1) ** 2))

    table, generator = LevelTable(1), torch.Generator().manual_seed(0)
    schedule = LearnedSchedule(table)
    time = torch.rand(20000, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(schedule.level(time), time)  # nothing learned: linear
    for _ in range(5):
        level = schedule.level(torch.rand(4000, generator=generator, dtype=torch.float64))
        values = loss(level)[:, None]
        table.add(*table.bin_sums(level, values, torch.ones_like(values, dtype=torch.bool)))
    plain = loss(LinearSchedule().level(time))
    warped = loss(schedule.level(time)) * schedule.slope(time)
    assert float(warped.mean()) == pytest.approx(float(plain.mean()), rel=0.03)
    assert float(warped.std()) < 0.45 * float(plain.std())


def test_tables_ignore_what_is_not_known_and_forget_slowly() -> None:
    table = LevelTable(2, bins=4)
    level = torch.tensor([0.1, 0.1, 0.6], dtype=torch.float64)
    values = torch.tensor([[1.0, 5.0], [3.0, float("nan")], [7.0, 9.0]], dtype=torch.float64)
    known = torch.tensor([[True, False], [True, True], [True, True]])
    table.add(*table.bin_sums(level, values, known))
    means = table.means()
    assert means[0, 0] == 2
    assert means[0, 1] == 9  # nothing finite in the bin: the mean of all
    assert means[2].tolist() == [7, 9]
    many = torch.full((20000,), 0.1, dtype=torch.float64)
    ones = torch.full((20000, 2), 4.0, dtype=torch.float64)
    table.add(*table.bin_sums(many, ones, torch.ones_like(ones, dtype=torch.bool)))
    assert float(table.means()[0, 0]) == pytest.approx(4.0, abs=1e-3)


def test_an_unknown_solver_is_refused() -> None:
    with pytest.raises(ConfigError, match="no solver 'rk4'; they are ddim"):
        find_solver("rk4")
