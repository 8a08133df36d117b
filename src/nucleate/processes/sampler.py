"""Sampling geometries: any process, schedule and solver, with any part of the geometry given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from nucleate.crystal.batch import CrystalBatch
from nucleate.crystal.lattice_torch import free_lattice_params
from nucleate.errors import ConfigError
from nucleate.processes.geometry_process import (
    DenoisedGeometry,
    GeometryDenoiser,
    GeometryNoise,
    GeometryProcess,
    clean_coords_change,
)
from nucleate.processes.level_table import LevelTable
from nucleate.processes.noise_path import path_scale
from nucleate.processes.schedule import LinearSchedule, Schedule
from nucleate.processes.solver import Move, Solver, find_solver, ode_move, sde_move
from nucleate.processes.wyckoff_torus import drift, shifted, wrap
from nucleate.shapes import Bool, Float, Int

Guide = Callable[[CrystalBatch, DenoisedGeometry, Tensor, Tensor], DenoisedGeometry]
"""(noisy crystals, guess, coordinate level, lattice level) -> better guess."""


@dataclass(frozen=True, eq=False)
class GivenGeometry:
    """The part of the geometry that is given; it stays clean, to the last digit.

    Attributes:
        lattice_params: lattices, read where ``lattice_known``.
        lattice_known: crystals whose lattice is given.
        free_coords: coordinates, read where ``coords_known``.
        coords_known: orbits whose coordinates are given.
    """

    lattice_params: Float[Tensor, "crystals 6"]
    lattice_known: Bool[Tensor, "crystals"]
    free_coords: Float[Tensor, "orbits 3"]
    coords_known: Bool[Tensor, "orbits"]

    def is_whole(self, template: CrystalBatch) -> bool:
        """Whether nothing of these crystals' geometry is open."""
        known = self.coords_known | (template.num_free == 0)
        return bool(self.lattice_known.all()) and bool(known.all())

    def of(self, template: CrystalBatch, chosen: Int[Tensor, "chosen"]) -> GivenGeometry:
        """What is given of some crystals of the batch that this belongs to."""
        orbits = template.orbits_of(chosen)
        return GivenGeometry(
            self.lattice_params[chosen],
            self.lattice_known[chosen],
            self.free_coords[orbits],
            self.coords_known[orbits],
        )

    def to(self, batch: CrystalBatch) -> GivenGeometry:
        """The same with the device and floating type of a batch."""
        device, dtype = batch.device, batch.dtype
        return GivenGeometry(
            self.lattice_params.to(device, dtype),
            self.lattice_known.to(device),
            self.free_coords.to(device, dtype),
            self.coords_known.to(device),
        )

    def imposed_on(self, crystals: CrystalBatch) -> CrystalBatch:
        """The crystals with the given parts as given."""
        return crystals.replace(
            lattice_params=torch.where(
                self.lattice_known[:, None], self.lattice_params, crystals.lattice_params
            ),
            free_coords=torch.where(self.coords_known[:, None], self.free_coords, crystals.free_coords),
        )


@dataclass(frozen=True, eq=False)
class _Guess:
    """The clean end as the solver sees it, coordinates on one sheet of the torus."""

    params: Float[Tensor, "crystals 6"]
    change: Float[Tensor, "orbits 3"]
    coords: Float[Tensor, "orbits 3"]


@torch.no_grad()
def sample_geometry(
    process: GeometryProcess,
    template: CrystalBatch,
    denoiser: GeometryDenoiser,
    *,
    noise: GeometryNoise,
    start: CrystalBatch | None = None,
    start_level: float = 1.0,
    steps: int = 40,
    solver: str = "ddim",
    schedule: Schedule | None = None,
    given: GivenGeometry | None = None,
    streams: list[torch.Generator] | None = None,
    guide: Guide | None = None,
    lattice_variance: LevelTable | None = None,
    on_step: Callable[[], None] | None = None,
) -> CrystalBatch:
    """Crystals on the given templates, from pure noise (t = 1) to data (t = 0).

    A given lattice is clean at every step and the denoiser is told so. Given coordinates of some of a crystal's orbits
    are carried at the noise level of the others (each orbit's own noisy version, the inpainting of Song et al. 2021,
    appendix I.2), because a denoiser is told one level per crystal; at the end they are as given.

    Args:
        process: noise and paths.
        template: groups, positions and elements; the geometry is not read.
        denoiser: network.
        noise: where it begins, and what given coordinates are carried with.
        start: crystals to begin with instead of pure noise, noisy at ``start_level``.
        start_level: the level it begins at; the times in between are as close as the number of steps makes them.
        steps: passes of the denoiser (a solver that looks twice takes half as many steps).
        solver: one of ``solver.SOLVERS``.
        schedule: noise level at each time; linear by default.
        given: parts of the geometry that are known.
        streams: one per crystal, what a stochastic solver draws from.
        guide: improves every guess (``guidance``).
        lattice_variance: mean square error of the guess at the lattice in units of the noise, by level; ancestral steps
            then have the variance that is best given it (``_learned_jitter``).
        on_step: called after each pass.

    Raises:
        ConfigError: the process cannot add noise on the way, or there are no streams to draw it from.
    """
    method = find_solver(solver)
    _check(process, method, template, noise, streams)
    schedule = schedule or LinearSchedule()
    x = process.prior(template, noise) if start is None else start
    known = None if given is None else _all_known(template, given)
    intervals = (steps + 1) // 2 if method.corrects else steps
    times = torch.linspace(1, 0, intervals + 1).double()
    levels = (start_level * schedule.level(times)).tolist()
    ones = torch.ones(len(x), dtype=torch.float64, device=x.device)

    def look(crystals: CrystalBatch, level: float) -> _Guess:
        coord = process.told_level(crystals, ones * level)
        lattice = ones * level
        if known is not None:
            coord, lattice = torch.where(known[1], 0.0, coord), torch.where(known[0], 0.0, lattice)
        told = coord.to(crystals.dtype), lattice.to(crystals.dtype)
        found = denoiser(crystals, *told)
        if guide is not None:
            found = guide(crystals, found, *told)
        change = clean_coords_change(crystals, found)
        if given is not None and given.coords_known.any():
            change = _anchored(crystals, change, given)
        if on_step is not None:
            on_step()
        return _Guess(found.lattice_params.to(crystals.dtype), change, crystals.free_coords + change)

    before: tuple[float, _Guess] | None = None
    for now, then in pairwise(levels):
        if given is not None:
            x = _with_given(process, x, given, ones * now, noise)
        guess = look(x, now)
        if method.stochastic:
            assert streams is not None
            fresh: GeometryNoise | None = GeometryNoise.draw_by_crystal(x, streams)
        else:
            fresh = None
        lean: tuple[float, _Guess] | None = before if method.name in ("multistep", "sde") else None
        moved = _advance(process, x, guess, lean, now, then, fresh, lattice_variance)
        if method.corrects and then > 0:
            ahead = moved if given is None else _with_given(process, moved, given, ones * then, noise)
            moved = _advance(process, x, guess, (then, look(ahead, then)), now, then, None, None)
        before, x = (now, guess), moved
    return x if given is None else given.imposed_on(x)


def _check(
    process: GeometryProcess,
    method: Solver,
    template: CrystalBatch,
    noise: GeometryNoise,
    streams: list[torch.Generator] | None,
) -> None:
    if not method.stochastic:
        return
    if process.coord_jitter(template, noise) is None:
        raise ConfigError(
            f"The solver {method.name} adds noise on the way, which the process {process.kind} cannot: use ddim, heun "
            "or multistep, or train with process: diffusion"
        )
    if streams is None:
        raise ConfigError(f"The solver {method.name} draws noise: give one random stream per crystal")


def _advance(
    process: GeometryProcess,
    x: CrystalBatch,
    guess: _Guess,
    other: tuple[float, _Guess] | None,
    now: float,
    then: float,
    fresh: GeometryNoise | None,
    lattice_variance: LevelTable | None,
) -> CrystalBatch:
    """One step of both fields; ``other`` is a guess at another level, from which D' follows."""
    ones = torch.ones(len(x), dtype=torch.float64, device=x.device)
    make = ode_move if fresh is None else sde_move
    # lattice: about the mean of its noise, except on the straight path, where any origin will do
    own = process.lattice.to(x.lattice_params)
    move, scale = make(ones * now, ones * then), path_scale(process.lattice_path, ones * now)
    origin = torch.zeros_like(own.mean) if process.lattice_path == "straight" else own.mean
    at = (x.lattice_params - origin) / scale.to(x.dtype)[:, None]
    change = move.pull.to(x.dtype)[:, None] * ((guess.params - origin) - at)
    if move.drift is not None:
        change = change + move.drift.to(x.dtype)[:, None] * at
    if other is not None:
        rate = (guess.params - other[1].params) / (now - other[0])
        change = change + move.lean.to(x.dtype)[:, None] * rate
    if fresh is not None:
        jitter = _learned_jitter(move, ones * now, lattice_variance).to(x.dtype)
        change = change + jitter * own.std * fresh.normals
    params = origin + path_scale(process.lattice_path, ones * then).to(x.dtype)[:, None] * (at + change)
    params = params * free_lattice_params(x.space_group_number)
    # coordinates: the noisy point is the origin
    told_now, told_then = process.told_level(x, ones * now), process.told_level(x, ones * then)
    move, scale = make(told_now, told_then), path_scale(process.coord_path, told_then)
    crystal = x.orbit_to_crystal

    def by_orbit(values: Tensor) -> Tensor:
        return (scale * values).to(x.dtype)[crystal][:, None]

    coords = x.free_coords + by_orbit(move.pull) * guess.change
    if other is not None:
        told_other = process.told_level(x, ones * other[0])
        rate = (guess.coords - other[1].coords) / (told_now - told_other).to(x.dtype)[crystal][:, None]
        coords = coords + by_orbit(move.lean) * rate
    if fresh is not None:
        jitter_coords = process.coord_jitter(x, fresh)
        assert jitter_coords is not None
        coords = coords + by_orbit(move.jitter) * jitter_coords
    return x.replace(free_coords=coords, lattice_params=params)


def _learned_jitter(
    move: Move, level: Float[Tensor, "crystals"], errors: LevelTable | None
) -> Float[Tensor, "crystals 6"]:
    """Standard deviation of a step of the lattice, by parameter.

    Knowing x_0, a step has the variance ``jitter^2``. A guess D at x_0 with the mean square error e leaves
    ``jitter^2 + pull^2 e``, the best variance of a Gaussian step (Bao et al., Analytic-DPM, 2022, theorem 1). The
    errors are learned with the network.
    """
    plain = move.jitter[:, None].expand(-1, 6)
    if errors is None:
        return plain
    return torch.sqrt(plain**2 + move.pull[:, None] ** 2 * errors.at(level).to(plain))


def _with_given(
    process: GeometryProcess,
    x: CrystalBatch,
    given: GivenGeometry,
    level: Float[Tensor, "crystals"],
    noise: GeometryNoise,
) -> CrystalBatch:
    """The crystals with given lattices clean, and given coordinates at the level of the crystal's other orbits."""
    x = x.replace(
        lattice_params=torch.where(given.lattice_known[:, None], given.lattice_params, x.lattice_params)
    )
    if not given.coords_known.any():
        return x
    known = _all_known(x, given)[1]
    clean = x.replace(free_coords=torch.where(given.coords_known[:, None], given.free_coords, x.free_coords))
    carried = process.noisy_coords(clean, torch.where(known, 0.0, level).to(x.dtype), noise)
    return x.replace(free_coords=torch.where(given.coords_known[:, None], carried, x.free_coords))


def _anchored(
    x: CrystalBatch, change: Float[Tensor, "orbits 3"], given: GivenGeometry
) -> Float[Tensor, "orbits 3"]:
    """The way to the guess with the origin where given coordinates put it.

    A denoiser says nothing of the common shift along polar directions, which given coordinates fix. Its guess may be at
    another copy of a given orbit: differences are those to the nearest one.
    """
    missing = wrap(x, given.free_coords - x.free_coords - change)
    return shifted(x, change, drift(x, missing, given.coords_known))


def _all_known(template: CrystalBatch, given: GivenGeometry) -> tuple[Tensor, Tensor]:
    """(crystals whose lattice is given, crystals all of whose movable orbits are given)."""
    open_orbits = (template.num_free > 0) & ~given.coords_known
    count = torch.zeros(len(template), dtype=torch.int64, device=template.device)
    count = count.index_add(0, template.orbit_to_crystal, open_orbits.long())
    has_known = torch.zeros_like(count).index_add(0, template.orbit_to_crystal, given.coords_known.long()) > 0
    return given.lattice_known, (count == 0) & has_known
