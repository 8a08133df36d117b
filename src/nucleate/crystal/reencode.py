"""Other encodings of the same crystal: normalizer elements, floating origins, mirror images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.normalizer import EncodingMaps, Normalizer
from nucleate.crystal.space_group import space_group
from nucleate.crystal.tables import group_arrays
from nucleate.shapes import Float, Int

# A circular mean shorter than this, or than half of what random phases give, has no usable direction.
_PHASE_THRESHOLD = 0.05
# Weaker than this a mean is rounding; its phase in turns is compared give or take the tolerance.
_WEAKEST_MEAN, _TURN_TOLERANCE = 1e-4, 1e-2


@dataclass(frozen=True, eq=False)
class Encodings:
    """Several encodings of one crystal: what differs between them, one row each.

    Attributes:
        wyckoff_indices: Wyckoff position of every orbit.
        free_coords: free coordinates, not reduced by periods or identification maps.
        metric: ``A A^T`` of the conventional cell in Å^2.
    """

    wyckoff_indices: Int[np.ndarray, "e orbits"]
    free_coords: Float[np.ndarray, "e orbits 3"]
    metric: Float[np.ndarray, "e 3 3"]

    def __len__(self) -> int:
        return len(self.metric)

    def take(self, index: np.ndarray) -> Encodings:
        """The chosen encodings."""
        return Encodings(self.wyckoff_indices[index], self.free_coords[index], self.metric[index])


def encodings_of(crystal: Crystal) -> Encodings:
    """The crystal's own encoding, as one row."""
    metric = crystal.lattice @ crystal.lattice.T
    return Encodings(crystal.wyckoff_indices[None], crystal.free_coords[None], metric[None])


def changed_metrics(encodings: Encodings, maps: EncodingMaps) -> Float[np.ndarray, "changed 3 3"]:
    """``A A^T`` of every encoding after every element of ``maps``, the latter varying fastest."""
    back = np.linalg.inv(maps.linear)
    return (np.swapaxes(back, -1, -2) @ encodings.metric[:, None] @ back).reshape(-1, 3, 3)


def apply_maps(encodings: Encodings, maps: EncodingMaps) -> Encodings:
    """Every encoding changed by every element of ``maps``, the latter varying fastest."""
    n, m = len(encodings), len(maps)
    rows, elements = np.repeat(np.arange(n), m), np.tile(np.arange(m), n)
    w = encodings.wyckoff_indices[rows]
    e = elements[:, None]
    free = (
        np.einsum("eoij,eoj->eoi", maps.map_linear[e, w], encodings.free_coords[rows]) + maps.map_shift[e, w]
    )
    return Encodings(maps.permutations[e, w], free, changed_metrics(encodings, maps))


def crystal_of(encodings: Encodings, row: int, *, space_group_number: int, like: Crystal) -> Crystal:
    """One row as a crystal of the given group with the elements of ``like``."""
    group = space_group(space_group_number)
    params = group.lattice_subspace.params_of_metric(encodings.metric[row], num_atoms=like.num_atoms)
    return Crystal(
        space_group_number,
        params,
        encodings.wyckoff_indices[row],
        like.atomic_numbers,
        encodings.free_coords[row],
    )


def mirror_image(crystal: Crystal) -> Crystal:
    """The mirror image: the crystal itself, unless its group is one of the 65 Sohncke groups."""
    normalizer = crystal.group.normalizer
    if normalizer.mirror is None:
        return crystal
    mirrored = apply_maps(encodings_of(crystal), normalizer.mirror)
    return crystal_of(mirrored, 0, space_group_number=normalizer.mirror_partner, like=crystal)


def shift_along(number: int, encodings: Encodings, shift: Float[np.ndarray, "e 3"]) -> Encodings:
    """The encodings with their origins moved along the continuous directions of a polar group.

    Every position of a polar group is free along them, so that only free coordinates change: ``du = B^+ s``.
    """
    inverse = _pseudo_inverses(number)[encodings.wyckoff_indices]
    moved = encodings.free_coords + np.einsum("eoij,ej->eoi", inverse, shift)
    return Encodings(encodings.wyckoff_indices, moved, encodings.metric)


@cache
def _pseudo_inverses(number: int) -> Float[np.ndarray, "positions 3 3"]:
    start = space_group(number).position_start
    return np.linalg.pinv(group_arrays()["basis"][start : start + len(space_group(number).letters)])


def fix_floating_origin(normalizer: Normalizer, encodings: Encodings) -> Encodings:
    """The encodings with the floating origin of a polar group fixed, once for every choice that is left.

    Along each continuous direction j the multiplicity-weighted circular mean of ``exp(2 pi i h phi_j(f))``
    over the orbits is brought to phase zero, with the smallest harmonic h whose mean does not vanish; that
    leaves h choices.
    """
    number = normalizer.space_group_number
    tables = group_arrays()
    for j in range(normalizer.directions.shape[1]):
        ids = encodings.wyckoff_indices + space_group(number).position_start
        points = (
            np.einsum("eoij,eoj->eoi", tables["basis"][ids], encodings.free_coords) + tables["origin"][ids]
        )
        phases = 2j * np.pi * (points @ normalizer.functionals[j])
        weights = tables["num_images"][ids[0]] / tables["num_images"][ids[0]].sum()
        threshold = min(_PHASE_THRESHOLD, 0.5 * float(np.sqrt((weights**2).sum())))
        rows, steps = [], []
        pending, harmonic = np.arange(len(encodings)), 0
        while len(pending):
            harmonic += 1
            mean = np.exp(harmonic * phases[pending]) @ weights
            settled = np.abs(mean) >= threshold
            offset = -np.angle(mean[settled]) / (2 * np.pi * harmonic)
            choices = offset[:, None] + np.arange(harmonic) / harmonic
            kept = _told_apart(phases[pending[settled]], weights, choices)
            steps.append(choices[kept])
            rows.append(pending[settled][np.nonzero(kept)[0]])
            pending = pending[~settled]
        chosen = encodings.take(np.concatenate(rows))
        encodings = shift_along(number, chosen, np.concatenate(steps)[:, None] * normalizer.directions[:, j])
    return encodings


def _told_apart(
    phases: np.ndarray, weights: Float[np.ndarray, "orbits"], choices: Float[np.ndarray, "e choices"]
) -> np.ndarray:
    """Which of the origins that one harmonic leaves a lower harmonic prefers: those of the smallest phase.

    A lower harmonic too weak to fix the origin (a nearly repeated cell) still tells its repeats apart; without it a
    rattled supercell would leave as many origins as it has cells.
    """
    kept = np.ones(choices.shape, dtype=bool)
    for harmonic in range(1, choices.shape[1]):
        mean = np.exp(harmonic * phases) @ weights
        turns = np.angle(mean)[:, None] / (2 * np.pi) + harmonic * choices
        distance = np.where(kept, np.abs(turns - np.rint(turns)), np.inf)
        nearest = distance <= distance.min(axis=1, keepdims=True) + _TURN_TOLERANCE
        kept &= nearest | (np.abs(mean) < _WEAKEST_MEAN)[:, None]
    return kept


def random_encoding(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    """The crystal in a random encoding: normalizer element, floating origin, equivalent free coordinates."""
    group = crystal.group
    normalizer = group.normalizer
    linear = normalizer.linear.take(rng.integers(len(normalizer.linear), size=1))
    shift = normalizer.shifts.take(rng.integers(len(normalizer.shifts), size=1))
    encodings = apply_maps(apply_maps(encodings_of(crystal), linear), shift)
    if normalizer.directions.shape[1]:
        step = normalizer.directions @ rng.uniform(size=normalizer.directions.shape[1])
        encodings = shift_along(group.number, encodings, step[None])
    free = encodings.free_coords[0].copy()
    for o, w in enumerate(encodings.wyckoff_indices[0]):
        position = group.wyckoff_positions[w]
        d = position.num_free
        if d:
            choice = rng.integers(len(position.identification_linear))
            free[o, :d] = (
                position.identification_linear[choice] @ free[o, :d] + position.identification_shift[choice]
            )
            free[o, :d] += position.period_lattice @ rng.integers(-1, 2, size=d)
    encodings = Encodings(encodings.wyckoff_indices, free[None], encodings.metric)
    return crystal_of(encodings, 0, space_group_number=group.number, like=crystal)
