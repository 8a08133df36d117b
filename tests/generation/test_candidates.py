"""Candidates: the first is what one alone would be, the kept one has the least error, and errors see what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from nucleate.crystal import CrystalBatch, encode
from nucleate.data.bundled import bundled_crystal
from nucleate.errors import ConditionError
from nucleate.generation.block_workers import one_thread
from nucleate.generation.candidates import likeliest_geometry, num_passes
from nucleate.generation.condition import Condition
from nucleate.generation.generator import Generator, load
from nucleate.generation.geometry_sampling import filled_up, network_denoiser
from nucleate.models.checkpoint import default_weights, load_checkpoint
from nucleate.models.orbit_transformer import Denoised, NoisyCrystals
from nucleate.processes.denoising_error import NOISE_LEVELS, denoising_error
from nucleate.processes.geometry_flow import GeometryNoise
from nucleate.processes.sampler import GivenGeometry, sample_geometry

KNOWN = (
    "tio2-rutile",
    "tio2-anatase",
    "zns-wurtzite",
    "al2o3-corundum",
    "fes2-pyrite",
    "sio2-alpha-quartz-p3-121",
)


@pytest.fixture(autouse=True)
def in_one_thread() -> Iterator[None]:
    """As the package samples: with more threads the rounding depends on what else is in a pass."""
    with one_thread():
        yield


@pytest.fixture(scope="module")
def generator() -> Generator:
    return load()


@pytest.fixture(scope="module")
def known() -> CrystalBatch:
    crystals = [encode(bundled_crystal(name).unit_cell).crystal for name in KNOWN]
    return CrystalBatch.from_crystals(crystals, dtype=torch.float32)


def streams(n: int, seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(100 * seed + i) for i in range(n)]


def denoiser(generator: Generator) -> Callable[[CrystalBatch, torch.Tensor, torch.Tensor], Denoised]:
    def network(crystals: CrystalBatch, coord_time: torch.Tensor, lattice_time: torch.Tensor) -> Denoised:
        token = torch.zeros(len(crystals), dtype=torch.int64)
        with torch.no_grad():
            return generator.geometry(NoisyCrystals(crystals, coord_time, lattice_time, token))

    return network


def cells(templates: CrystalBatch, params: torch.Tensor) -> GivenGeometry:
    """All cells given, no coordinates."""
    orbits = torch.zeros(len(templates.position_ids), dtype=torch.bool)
    return GivenGeometry(params, torch.ones(len(templates), dtype=torch.bool), templates.free_coords, orbits)


def test_the_candidate_with_the_least_error_is_kept(generator: Generator, known: CrystalBatch) -> None:
    """Crystal by crystal the kept geometry and its error are those of the best of three separate draws."""
    kept, errors = likeliest_geometry(
        generator.geometry, generator.choice.process, known, streams(len(known)), candidates=3, steps=5
    )
    mine = streams(len(known))
    starts = [GeometryNoise.draw_by_crystal(known, mine) for _ in range(3)]
    noises = [GeometryNoise.draw_by_crystal(known, mine) for _ in NOISE_LEVELS]
    process, rows = generator.choice.process, torch.tensor(filled_up(list(range(len(known)))))
    draws = [
        sample_geometry(process, known[rows], denoiser(generator), noise=start.of(known, rows), steps=5)
        for start in starts
    ]
    seen = [noise.of(known, rows) for noise in noises]
    judged = torch.stack(
        [denoising_error(process, draw, denoiser(generator), noises=seen)[: len(known)] for draw in draws]
    )
    best = judged.argmin(dim=0).tolist()
    assert len(set(best)) > 1
    assert torch.equal(errors, judged.min(dim=0).values)
    for i, (crystal, choice) in enumerate(zip(kept.to_crystals(), best)):
        expected = draws[choice].to_crystals()[i]
        assert np.array_equal(crystal.free_coords, expected.free_coords)
        assert np.array_equal(crystal.lattice_params, expected.lattice_params)


def test_candidates_of_few_crystals_go_through_the_network_together(
    generator: Generator, known: CrystalBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two crystals with eight candidates fill one pass, with ten they need two; on their own ten would need ten."""
    passes: list[int] = []
    forward = generator.geometry.forward

    def counted(noisy: NoisyCrystals, *rest: Any) -> Denoised:
        passes.append(len(noisy.crystals))
        return forward(noisy, *rest)

    monkeypatch.setattr(generator.geometry, "forward", counted)
    few, judged = known[:2], len(NOISE_LEVELS)
    for candidates, expected in ((1, [16]), (8, [16]), (10, [16, 16])):
        passes.clear()
        likeliest_geometry(
            generator.geometry, generator.choice, few, streams(2), candidates=candidates, restarts=1, steps=2
        )
        assert passes == [size for size in expected for _ in range(num_passes(2, 1) + judged)]


@pytest.mark.parametrize("lattice_given", [False, True])
def test_restarts_go_on_from_the_first_way_and_keep_what_is_given(
    generator: Generator, known: CrystalBatch, lattice_given: bool
) -> None:
    """As many passes as said; the first candidate is the same however many follow; a given lattice stays."""

    def made(restarts: int, candidates: int = 1) -> tuple[CrystalBatch, int]:
        passes: list[int] = []
        found, _ = likeliest_geometry(
            generator.geometry,
            generator.choice.process,
            known,
            streams(len(known)),
            restarts=restarts,
            candidates=candidates,
            steps=4,
            given=cells(known, known.lattice_params) if lattice_given else None,
            on_step=lambda: passes.append(1),
        )
        return found, len(passes)

    (without, few), (once, more), (best, twice) = made(0), made(2), made(2, candidates=2)
    assert [few, more, twice] == [num_passes(4, 0), num_passes(4, 2), 2 * num_passes(4, 2)] == [4, 12, 24]
    assert not torch.equal(without.free_coords, once.free_coords)
    assert torch.equal(once.lattice_params, known.lattice_params) == lattice_given
    first_kept = [
        np.array_equal(a.free_coords, b.free_coords) for a, b in zip(once.to_crystals(), best.to_crystals())
    ]
    assert any(first_kept)
    assert not all(first_kept)


def test_a_geometry_given_as_a_whole_is_judged_and_not_sampled(
    generator: Generator, known: CrystalBatch
) -> None:
    every = torch.ones(len(known.position_ids), dtype=torch.bool)
    given = replace(cells(known, known.lattice_params), coords_known=every)
    assert given.is_whole(known)
    assert not replace(given, coords_known=~every).is_whole(known)
    assert not replace(given, lattice_known=~given.lattice_known).is_whole(known)
    told: list[int] = []
    asked = partial(likeliest_geometry, generator.geometry, generator.choice, given=given, steps=3)
    asked = partial(asked, candidates=2, on_step=lambda: told.append(1))
    found, errors = asked(known, streams(len(known)))
    assert torch.equal(found.free_coords, known.free_coords)
    assert torch.equal(found.lattice_params, known.lattice_params)
    assert len(told) == 2 * num_passes(3, 0)
    wrong = known.replace(atomic_numbers=known.atomic_numbers.flip(0))
    assert (asked(wrong, streams(len(known)))[1] > errors).float().mean() > 0.6


def test_a_given_lattice_counts_where_it_is_judged(generator: Generator) -> None:
    """Rock salt a third too large is seen by its error then, and only then: it has no free coordinate."""
    crystals = [
        encode(bundled_crystal(name).unit_cell).crystal for name in ("nacl-rock-salt", "mgo-periclase")
    ]
    salt = CrystalBatch.from_crystals(crystals, dtype=torch.float32)
    swollen = salt.lattice_params.clone()
    swollen[:, 0] += 0.3 / 3**0.5
    asked = partial(likeliest_geometry, generator.geometry, generator.choice, salt)
    for judge in (False, True):
        right, wrong = (
            asked(streams(2), given=cells(salt, params), judge_given=judge)[1]
            for params in (salt.lattice_params, swollen)
        )
        assert (wrong > 1.5 * right).tolist() == [judge, judge]


def test_autoguidance_needs_a_weaker_network(generator: Generator) -> None:
    """The shipped weights hold one, and it changes the geometry; without one the way out is said."""
    condition = Condition(formula="TiO2", num_atoms=(6, 6))
    usual, without = (generator.generate(condition, 3, 0, steps=4, autoguidance=s) for s in (None, 0.0))
    assert [r.wyckoff for r in usual.rows] == [r.wyckoff for r in without.rows]
    assert any(not np.array_equal(a.lattice_params, b.lattice_params) for a, b in zip(usual, without))
    alone = Generator(load_checkpoint(default_weights()).replace(weak=None), name="alone")
    again = alone.generate(condition, 3, 0, steps=4)
    assert all(np.array_equal(a.lattice_params, b.lattice_params) for a, b in zip(again, without))
    with pytest.raises(ConditionError, match="--part weak"):
        alone.generate(condition, 3, 0, autoguidance=1.0)
    with pytest.raises(ConditionError, match="not negative"):
        generator.generate(condition, 3, 0, autoguidance=float("nan"))
    with pytest.raises(ConditionError, match="restarts must not be negative"):
        generator.generate(condition, 3, 0, restarts=-1)


def test_errors_tell_real_crystals_from_random_ones(generator: Generator, known: CrystalBatch) -> None:
    """Each known crystal has a smaller error than most random geometries on its template."""

    def error(crystals: CrystalBatch) -> torch.Tensor:
        noises = [GeometryNoise.draw_by_crystal(known, streams(len(known), 5)) for _ in NOISE_LEVELS]
        return denoising_error(generator.choice.process, crystals, denoiser(generator), noises=noises)

    real = error(known)
    random = torch.stack(
        [
            error(
                generator.choice.process.prior(
                    known, GeometryNoise.draw_by_crystal(known, streams(len(known), seed))
                )
            )
            for seed in range(1, 6)
        ]
    )
    assert (real < random).float().mean() > 0.85
    # negative control: told the random geometry is the truth, the same comparison fails
    assert (random[0] < random[1:]).float().mean() < 0.85


def test_generation_takes_candidates(generator: Generator) -> None:
    one = generator.generate(Condition(formula="TiO2"), 4, 0, steps=6)
    three = generator.generate(Condition(formula="TiO2"), 4, 0, steps=6, candidates=3)
    assert [r.wyckoff for r in one.rows] == [r.wyckoff for r in three.rows]
    assert all(row.denoising_error > 0 for row in three.rows)


def test_mixed_precision_rounds_the_guess_and_nothing_else(generator: Generator, known: CrystalBatch) -> None:
    """The guess is off by bfloat16's rounding, far less than that at another noise level, and keeps its type."""
    early, late = torch.full((len(known),), 0.2), torch.full((len(known),), 0.8)

    def guess(level: torch.Tensor, *, mixed: bool) -> torch.Tensor:
        with torch.no_grad():
            found = network_denoiser(generator.geometry, mixed_precision=mixed)(known, level, level)
        assert {found.displacements.dtype, found.lattice_params.dtype} == {torch.float32}
        return found.lattice_params

    exact, rounded, other = guess(early, mixed=False), guess(early, mixed=True), guess(late, mixed=False)
    assert not torch.equal(exact, rounded)
    assert (rounded - exact).norm() < 0.2 * (other - exact).norm()
