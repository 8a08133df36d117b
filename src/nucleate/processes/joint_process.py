"""The joint process: the fields of a crystal in their partial order, any of them given, each with its noise level."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import torch
from torch import Tensor

from nucleate.crystal.batch import CrystalBatch
from nucleate.crystal.lattice_torch import MAX_LATTICE_PARAMS, free_lattice_params
from nucleate.crystal.space_group import space_group
from nucleate.errors import ConditionError
from nucleate.processes.choice import ProcessChoice
from nucleate.processes.denoising_error import NOISE_LEVELS, denoising_error
from nucleate.processes.geometry_process import GeometryDenoiser, GeometryNoise
from nucleate.processes.sampler import GivenGeometry, sample_geometry
from nucleate.processes.template_constraints import TemplateConstraint
from nucleate.processes.template_process import (
    NextOrbitModel,
    SampledTemplate,
    TemplateTemperature,
    sample_templates,
)
from nucleate.shapes import Float, Int

NEEDS: Mapping[str, tuple[str, ...]] = {
    "group": (),
    "positions": ("group",),
    "elements": ("positions",),
    "coords": ("positions",),
    "lattice": ("positions",),
}
"""The partial order: a field does not exist before the fields it needs."""

_GIVEN_WITH: Mapping[str, tuple[str, ...]] = {
    "positions": ("group",),
    "coords": ("group", "positions"),
    "lattice": ("group",),
}
"""What has to be given with a field, since its values mean nothing without."""


SHARPNESS = 5.0
"""How much a denoising error counts per number that is given. The bound of a diffusion model has 1/2, up to the
weighting of levels; ten times as much tells right elements from wrong ones more often (docs/processes.md)."""


_HOPELESS = 1e6
"""Denoising error of a crystal that has none: it has run away."""


@dataclass(frozen=True)
class Stage:
    """Fields that are drawn together.

    Attributes:
        fields: drawn here.
        levels: noise level of every field while this stage runs, as (at its begin, at its end): 0 is known, 1 open.
    """

    fields: tuple[str, ...]
    levels: Mapping[str, tuple[float, float]]


def stages(given: frozenset[str] = frozenset()) -> tuple[Stage, ...]:
    """How a crystal comes about when some fields are given, in the partial order of ``NEEDS``.

    Fields that are given have level 0 throughout. The others are at 1 until their stage, in which they go to 0
    together: the template fields one choice after the other, then what is open of the geometry, coordinates and lattice
    on a common time. Elements come with the positions; where the geometry is given it has a say in them.

    Raises:
        ConditionError: a name that is no field, or a field that is given without those it belongs to.
    """
    if unknown := sorted(given - set(NEEDS)):
        raise ConditionError(f"There is no field {unknown[0]!r}; they are {', '.join(NEEDS)}")
    for name in sorted(given & set(_GIVEN_WITH)):
        if missing := [need for need in _GIVEN_WITH[name] if need not in given]:
            raise ConditionError(f"The field {name} can be given only with {' and '.join(missing)}")
    drawn = [
        tuple(f for f in fields if f not in given)
        for fields in (("group",), ("positions", "elements"), ("coords", "lattice"))
    ]
    level = {name: 0.0 if name in given else 1.0 for name in NEEDS}
    found = []
    for fields in drawn:
        if not fields:
            continue
        after = {**level, **dict.fromkeys(fields, 0.0)}
        found.append(Stage(fields, {name: (level[name], after[name]) for name in NEEDS}))
        level = after
    return tuple(found)


@dataclass(frozen=True, eq=False)
class GivenParts:
    """What is known of one crystal beside its ``TemplateConstraint``.

    Attributes:
        lattice_params: its lattice, as many numbers as its space group leaves free; None where open.
        free_coords: coordinates of the constraint's orbits (``slots``) by place, None where open: as many numbers as
            the orbit's position leaves free, or a row of ``Crystal.free_coords``, which ends in zeros.
    """

    lattice_params: np.ndarray | None = None
    free_coords: tuple[np.ndarray | None, ...] = ()


@dataclass(frozen=True, eq=False)
class JointSample:
    """Crystals, in float64 on the CPU, with the log probability of their templates under the template model."""

    crystals: CrystalBatch
    log_prob: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class JointProcess:
    """Templates by the discrete process, geometries by the continuous one, joined; it knows no network.

    Attributes:
        choice: process, schedule and solver of the geometry.
        model: log odds of groups, positions and elements for constraints (one model per batch of constraints).
        denoiser: guess at the clean geometry.
        device: where the denoiser looks at crystals.
    """

    choice: ProcessChoice
    model: Callable[[Sequence[TemplateConstraint]], NextOrbitModel]
    denoiser: GeometryDenoiser
    device: torch.device | str = "cpu"

    def sample(
        self,
        constraints: Sequence[TemplateConstraint],
        parts: Sequence[GivenParts],
        generators: Sequence[np.random.Generator],
        *,
        steps: int = 20,
        proposals: int = 1,
        temperature: TemplateTemperature | float = 1.0,
    ) -> JointSample:
        """One crystal per constraint, everything that is given kept to the last digit.

        De novo generation, prediction from a formula, a given template, completion of some given orbits, a given cell
        and substitution of elements in a given geometry are all this one call, with different things given.

        Where the whole geometry is given and elements are open, ``proposals`` templates are drawn for each crystal and
        one is kept with probability proportional to ``exp(-5 n e)``: e is the denoising error of the given geometry
        with those elements, n how many free numbers it has, all of which get noise (``free_numbers``). That is sampling
        by importance: the template model proposes, and the weight is the likelihood of the geometry as a diffusion
        model bounds it, up to the weighting of the noise levels (Li et al., Your diffusion model is secretly a
        zero-shot classifier, 2023). With one proposal the geometry has no say. The whole geometry is given where the
        lattice and all coordinates of the slots are and the constraint is ``complete``.

        Args:
            constraints: groups, composition, given orbits (``slots``).
            parts: given lattices and coordinates.
            generators: one random stream per crystal.
            steps: passes of the denoiser.
            proposals: templates tried for each crystal whose geometry is given.
            temperature: of the template's choices.

        Raises:
            ConditionError: nothing can be as asked; coordinates are given for orbits whose position is not; more or
                fewer numbers are given than are free; or proposals are asked for where lattice and coordinates of all
                slots are given and other orbits may come.
        """
        _check(constraints, parts, proposals=proposals)
        templates = sample_templates(
            self.model(constraints), constraints, generators, temperature=temperature
        )
        streams = [torch.Generator().manual_seed(int(g.integers(2**63))) for g in generators]
        rows = [
            i
            for i, (constraint, part) in enumerate(zip(constraints, parts))
            if proposals > 1 and constraint.complete and _slots_known(constraint, part)
        ]
        if rows:
            chosen = self._by_geometry(
                rows, constraints, parts, generators, templates, streams, proposals, temperature
            )
            templates = [chosen.get(i, template) for i, template in enumerate(templates)]
        batch = template_batch(templates).to(self.device)
        given, crystals = given_geometry(batch, parts), batch
        if not given.is_whole(batch):
            crystals = sample_geometry(
                self.choice.process,
                batch,
                self.denoiser,
                noise=GeometryNoise.draw_by_crystal(batch, streams),
                steps=steps,
                solver=self.choice.solver,
                schedule=self.choice.schedule,
                given=given,
                streams=streams,
                lattice_variance=self.choice.lattice_variance,
            )
        exact = crystals.to("cpu", torch.float64)
        whole = given_geometry(exact, parts)
        return JointSample(whole.imposed_on(exact), tuple(t.log_prob for t in templates))

    def _by_geometry(
        self,
        rows: list[int],
        constraints: Sequence[TemplateConstraint],
        parts: Sequence[GivenParts],
        generators: Sequence[np.random.Generator],
        templates: Sequence[SampledTemplate],
        streams: Sequence[torch.Generator],
        proposals: int,
        temperature: TemplateTemperature | float,
    ) -> dict[int, SampledTemplate]:
        """For each of these crystals one of its proposals, drawn by the error of its geometry."""
        asked, own = [constraints[i] for i in rows], [generators[i] for i in rows]
        tried = [[templates[i] for i in rows]]
        for _ in range(proposals - 1):
            tried.append(sample_templates(self.model(asked), asked, own, temperature=temperature))
        batch = template_batch(tried[0]).to(self.device)
        noises = [GeometryNoise.draw_by_crystal(batch, [streams[i] for i in rows]) for _ in NOISE_LEVELS]
        geometry = [parts[i] for i in rows]
        batches = [template_batch(candidates).to(self.device) for candidates in tried]
        clean = [given_geometry(each, geometry).imposed_on(each) for each in batches]
        levels = [generator.random() for generator in own]
        errors = [
            denoising_error(self.choice.process, each, self.denoiser, noises=noises).cpu().double().numpy()
            for each in clean
        ]
        picks = pick_by_error(np.array(errors), free_numbers(batch).cpu().numpy(), levels)
        return {i: tried[pick][k] for k, (i, pick) in enumerate(zip(rows, picks, strict=True))}


def pick_by_error(
    errors: Float[np.ndarray, "proposals crystals"],
    num_given: Int[np.ndarray, "crystals"],
    levels: Sequence[float],
) -> list[int]:
    """Which of its proposals each crystal takes, with probability proportional to ``exp(-SHARPNESS n e)``.

    Args:
        errors: e, the denoising error; one that is not finite counts as very large.
        num_given: n, how many numbers are given.
        levels: a uniform number in [0, 1) for each crystal.
    """
    logits = -SHARPNESS * num_given * np.nan_to_num(errors, nan=_HOPELESS, posinf=_HOPELESS)
    cumulative = np.exp(logits - logits.max(axis=0)).cumsum(axis=0)
    picks: list[int] = (
        (cumulative <= cumulative[-1] * np.array(levels)).sum(axis=0).clip(max=len(errors) - 1).tolist()
    )
    return picks


def free_numbers(batch: CrystalBatch, given: GivenGeometry | None = None) -> Int[Tensor, "crystals"]:
    """Free coordinates and free lattice parameters of each crystal; of these the given ones, if a part is given."""
    lattice, coords = free_lattice_params(batch.space_group_number).sum(dim=1), batch.num_free
    if given is not None:
        lattice, coords = lattice * given.lattice_known, coords * given.coords_known
    return lattice.index_add(0, batch.orbit_to_crystal, coords)


def template_batch(
    templates: Sequence[SampledTemplate], *, dtype: torch.dtype = torch.float32
) -> CrystalBatch:
    """The templates as a batch whose geometry is still to come (zeros)."""
    num_orbits = np.array([len(t.wyckoff_indices) for t in templates], dtype=np.int64)
    return CrystalBatch.from_arrays(
        space_group_number=np.array([t.space_group_number for t in templates], dtype=np.int64),
        lattice_params=np.zeros((len(templates), MAX_LATTICE_PARAMS)),
        num_orbits=num_orbits,
        wyckoff_indices=np.concatenate([t.wyckoff_indices for t in templates]),
        atomic_numbers=np.concatenate([t.atomic_numbers for t in templates]),
        free_coords=np.zeros((int(num_orbits.sum()), 3)),
        dtype=dtype,
    )


def given_geometry(batch: CrystalBatch, parts: Sequence[GivenParts]) -> GivenGeometry:
    """The given parts in the order of the orbits of a batch: a template begins with the orbits of its slots."""
    params, coords = torch.zeros_like(batch.lattice_params), torch.zeros_like(batch.free_coords)
    lattice_known = torch.zeros(len(batch), dtype=torch.bool, device=batch.device)
    coords_known = torch.zeros(len(coords), dtype=torch.bool, device=batch.device)
    for i, (part, start) in enumerate(zip(parts, batch.orbit_start.tolist())):
        if part.lattice_params is not None:
            own = torch.as_tensor(part.lattice_params).to(params)
            params[i, : len(own)] = own
            lattice_known[i] = True
        for k, free in enumerate(part.free_coords):
            if free is not None:
                own = torch.as_tensor(free).to(coords)
                coords[start + k, : len(own)] = own
                coords_known[start + k] = True
    return GivenGeometry(params, lattice_known, coords, coords_known)


def _slots_known(constraint: TemplateConstraint, part: GivenParts) -> bool:
    """Whether the lattice and the coordinates of all given orbits are given, as far as there are any."""
    if part.lattice_params is None:
        return False
    (number,) = constraint.space_groups
    num_free = space_group(number).num_free_coords
    return all(
        free is not None or (slot.position is not None and num_free[slot.position] == 0)
        for slot, free in zip_longest(constraint.slots, part.free_coords)
    )


def _check(constraints: Sequence[TemplateConstraint], parts: Sequence[GivenParts], *, proposals: int) -> None:
    if len(constraints) != len(parts):
        raise ConditionError(f"{len(constraints)} constraints need as many given parts, got {len(parts)}")
    for i, (constraint, part) in enumerate(zip(constraints, parts)):
        _check_coords(f"Crystal {i}", constraint, part)
        if part.lattice_params is not None:
            _check_lattice(f"Crystal {i}", constraint, part.lattice_params)
        open_end = not constraint.complete and any(free is not None for free in part.free_coords)
        if proposals > 1 and open_end and _slots_known(constraint, part):
            raise ConditionError(
                f"Crystal {i}: lattice and coordinates of all {len(constraint.slots)} given orbits are known, but more "
                f"may come, so that {proposals} proposals have no common geometry to be judged by; say complete=True "
                "in its constraint if none come, or sample it with proposals=1"
            )


def _check_coords(name: str, constraint: TemplateConstraint, part: GivenParts) -> None:
    if len(part.free_coords) > len(constraint.slots):
        raise ConditionError(
            f"{name}: coordinates of {len(part.free_coords)} orbits are given, but only {len(constraint.slots)} orbits"
        )
    for k, (slot, free) in enumerate(zip(constraint.slots, part.free_coords)):
        if free is None:
            continue
        if slot.position is None:
            raise ConditionError(
                f"{name}, orbit {k}: coordinates are given for an orbit whose Wyckoff position is not"
            )
        (number,) = constraint.space_groups
        position = space_group(number).wyckoff_positions[slot.position]
        padded = np.shape(free) == (3,) and not np.any(free[position.num_free :])
        if np.shape(free) != (position.num_free,) and not padded:
            plural = "" if position.num_free == 1 else "s"
            raise ConditionError(
                f"{name}, orbit {k}: Wyckoff position {position.label} of space group {number} has "
                f"{position.num_free} free coordinate{plural}, got {np.size(free)}: {np.asarray(free).tolist()}"
            )


def _check_lattice(name: str, constraint: TemplateConstraint, lattice_params: np.ndarray) -> None:
    if len(constraint.space_groups) != 1:
        raise ConditionError(
            f"{name}: lattice parameters belong to one space group, got {len(constraint.space_groups)} groups"
        )
    (number,) = constraint.space_groups
    expected = space_group(number).lattice_subspace.num_params
    if np.shape(lattice_params) != (expected,):
        plural = "" if expected == 1 else "s"
        raise ConditionError(
            f"{name}: space group {number} has {expected} free lattice parameter{plural}, got "
            f"{np.size(lattice_params)}"
        )
