"""One encoding out of all of a crystal's encodings, and the discrete keys that all of them share."""

from __future__ import annotations

from functools import cache

import numpy as np

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.normalizer import Normalizer, normalizer
from nucleate.crystal.reencode import (
    Encodings,
    apply_maps,
    changed_metrics,
    crystal_of,
    encodings_of,
    fix_floating_origin,
    mirror_image,
)
from nucleate.crystal.space_group import space_group
from nucleate.crystal.species import element_symbol
from nucleate.crystal.tables import group_arrays
from nucleate.shapes import Float, Int

_RESOLUTION = 1e-5  # values nearer than this tie; the next quantity decides
_OFF_GRID = 0.1370  # keeps exact fractions such as 1/8 away from the edges of the rounding cells


def prototype_key(crystal: Crystal) -> str:
    """Group, template and stoichiometric pattern: ``221:a|b|c``, one field of Wyckoff letters per element.

    The smallest over all letter permutations of the normalizer and over the mirror image, elements unnamed.
    It does not depend on the lattice or on any free coordinate.
    """
    number, letters = _templates(crystal)
    rows = _element_rows(crystal, letters)
    rows.sort(axis=1)
    return f"{number}:" + "|".join(_spell(number, row) for row in _smallest(rows))


def bucket_key(crystal: Crystal) -> str:
    """The prototype key with the elements: ``221:O=c|Sr=a|Ti=b``, the smallest over the same permutations."""
    number, letters = _templates(crystal)
    rows = _smallest(_element_rows(crystal, letters))
    return f"{number}:" + "|".join(
        f"{symbol}={_spell(number, row)}" for symbol, row in zip(_symbols(crystal), rows)
    )


def _symbols(crystal: Crystal) -> list[str]:
    return sorted(element_symbol(z) for z in set(crystal.atomic_numbers.tolist()))


def _templates(crystal: Crystal) -> tuple[int, Int[np.ndarray, "n orbits"]]:
    """(group number modulo mirror image, Wyckoff indices of the orbits under every letter permutation)."""
    number = crystal.space_group_number
    own = crystal.group.normalizer
    variants = [crystal.wyckoff_indices]
    if own.mirror is not None:
        mirrored = own.mirror.permutations[0][crystal.wyckoff_indices]
        if own.mirror_partner == number:
            variants.append(mirrored)
        elif own.mirror_partner < number:
            number, variants = own.mirror_partner, [mirrored]
    permutations = normalizer(number).letter_permutations
    return number, np.concatenate([permutations[:, w] for w in variants])


def _element_rows(crystal: Crystal, letters: Int[np.ndarray, "n orbits"]) -> np.ndarray:
    """Sorted Wyckoff indices of each element as byte strings (n, elements), in the order of their symbols."""
    rows = []
    width = len(crystal.atomic_numbers)
    for symbol in _symbols(crystal):
        mine = np.array([element_symbol(z) == symbol for z in crystal.atomic_numbers.tolist()])
        table = np.zeros((len(letters), width), dtype=np.uint8)
        table[:, : mine.sum()] = np.sort(letters[:, mine], axis=1) + 1
        rows.append(table.view(f"S{width}"))
    return np.concatenate(rows, axis=1)


def _smallest(rows: np.ndarray) -> np.ndarray:
    return rows[min(range(len(rows)), key=lambda i: tuple(rows[i].tolist()))] if len(rows) > 1 else rows[0]


def _spell(number: int, row: bytes) -> str:
    letters, text = space_group(number).letters, ""
    for index in sorted(set(row)):
        count = row.count(bytes([index]))
        text += letters[index - 1] + (str(count) if count > 1 else "")
    return text


def canonical_encoding(crystal: Crystal) -> Crystal:
    """The encoding that is smallest in letters, then in lattice parameters, then in free coordinates.

    Monoclinic and triclinic cells are reduced first (shortest axes); polar origins are fixed by the circular
    mean; every orbit takes the smallest of its equivalent free coordinates, and orbits are sorted. Where two
    encodings agree within rounding in everything compared so far, the next quantity decides, so that the
    result is the same for every encoding of the crystal; it may jump where the crystal is within 1e-5 of a
    tie.
    """
    group = crystal.group
    own = group.normalizer
    encodings = _reduced(own, encodings_of(crystal))
    encodings = apply_maps(encodings, own.shifts)

    template = np.array([_sort_within(row, crystal.atomic_numbers) for row in encodings.wyckoff_indices])
    encodings = encodings.take(_tied(template, tolerance=0))
    params = group.lattice_subspace.params_of_metric(encodings.metric, num_atoms=crystal.num_atoms)
    encodings = encodings.take(_tied(_grid(params)))
    if own.directions.shape[1]:
        # The phase has a branch cut: rounding decides there between origins that ``phase_shifts`` join.
        encodings = apply_maps(fix_floating_origin(own, encodings), own.phase_shifts)
    free = _smallest_equivalents(group.number, encodings)

    rows, orders = [], []
    for e in range(len(encodings)):
        grid = _grid(free[e])
        order = np.lexsort(
            (grid[:, 2], grid[:, 1], grid[:, 0], encodings.wyckoff_indices[e], crystal.atomic_numbers)
        )
        orders.append(order)
        rows.append(grid[order].ravel())
    best = int(_tied(np.array(rows))[0])
    order = orders[best]
    chosen = Encodings(encodings.wyckoff_indices, free, encodings.metric)
    unsorted = crystal_of(chosen, best, space_group_number=group.number, like=crystal)
    return Crystal(
        group.number,
        unsorted.lattice_params,
        unsorted.wyckoff_indices[order],
        unsorted.atomic_numbers[order],
        unsorted.free_coords[order],
    )


def handedness(crystal: Crystal) -> int:
    """+1 or -1 for the two mirror images of a crystal in a Sohncke group, 0 where the two are the same.

    The sign is that of the canonical form: +1 for the mirror image whose group number, letters, lattice
    parameters and free coordinates come first.
    """
    own = crystal.group.normalizer
    if own.mirror is None:
        return 0
    if own.mirror_partner != crystal.space_group_number:
        return 1 if crystal.space_group_number < own.mirror_partner else -1
    here, there = _sort_key(canonical_encoding(crystal)), _sort_key(canonical_encoding(mirror_image(crystal)))
    return (here < there) - (here > there)


def _sort_key(crystal: Crystal) -> tuple:
    values = (crystal.wyckoff_indices, _grid(crystal.lattice_params), _grid(crystal.free_coords).ravel())
    # Signs differ first where they differ most: 0 for a tie comes out as +1 against -1, never as noise.
    return tuple(tuple(v.tolist()) for v in values)


def _reduced(own: Normalizer, encodings: Encodings) -> Encodings:
    """Every linear change of encoding; in monoclinic and triclinic groups those with the shortest axes."""
    if own.is_finite:
        return apply_maps(encodings, own.linear)
    axes = [0, 2] if own.space_group_number > 2 else [0, 1, 2]
    while True:
        # thousands of elements: look at their cells first, and carry the orbits over to the few that are kept
        lengths = changed_metrics(encodings, own.linear)[:, axes, axes].sum(axis=1)
        shortest = lengths.min()
        if shortest > lengths[0] * (1 - 1e-9):
            return apply_maps(
                encodings, own.linear.take(np.flatnonzero(lengths < shortest * (1 + _RESOLUTION)))
            )
        encodings = apply_maps(encodings, own.linear.take(np.array([lengths.argmin()])))


def _sort_within(wyckoff_indices: np.ndarray, atomic_numbers: np.ndarray) -> np.ndarray:
    return wyckoff_indices[np.lexsort((wyckoff_indices, atomic_numbers))]


def _grid(values: np.ndarray) -> Int[np.ndarray, "..."]:
    return np.rint(values / _RESOLUTION + _OFF_GRID).astype(np.int64)


def _tied(rows: Int[np.ndarray, "n columns"], *, tolerance: int = 1) -> Int[np.ndarray, "m"]:
    """Indices of the rows equal to the smallest in lexicographic order, give or take ``tolerance``."""
    alive = np.arange(len(rows))
    for column in range(rows.shape[1]):
        if len(alive) == 1:
            break
        values = rows[alive, column]
        alive = alive[values <= values.min() + tolerance]
    return alive


def _smallest_equivalents(number: int, encodings: Encodings) -> Float[np.ndarray, "e orbits 3"]:
    """Free coordinates of every orbit, the smallest of its equivalent copies in the cell of u."""
    linear, shift, valid, period, inverse = _identification_tables(number)
    w = encodings.wyckoff_indices
    copies = np.einsum("eomij,eoj->eomi", linear[w], encodings.free_coords) + shift[w]
    inside = np.einsum("eoij,eomj->eomi", inverse[w], copies)
    inside = inside - np.floor(inside + _RESOLUTION)
    grid = np.where(valid[w][..., None], _grid(inside), np.iinfo(np.int64).max)
    key = np.full(grid.shape[:3], True)
    for axis in range(3):
        masked = np.where(key, grid[..., axis], np.iinfo(np.int64).max)
        key &= masked <= masked.min(axis=2, keepdims=True) + 1
    best = key.argmax(axis=2)
    chosen = np.take_along_axis(inside, best[..., None, None], axis=2)[:, :, 0]
    return np.einsum("eoij,eoj->eoi", period[w], chosen)


@cache
def _identification_tables(number: int) -> tuple[np.ndarray, ...]:
    """Padded per position: (M, v, which maps exist, period lattice, its inverse)."""
    tables, group = group_arrays(), space_group(number)
    ids = np.arange(len(group.letters)) + group.position_start
    counts = tables["map_start"][ids + 1] - tables["map_start"][ids]
    nth = np.arange(counts.max())
    valid = nth < counts[:, None]
    rows = tables["map_start"][ids][:, None] + np.where(valid, nth, 0)
    used = np.arange(3) < tables["num_free"][ids][:, None]
    period = tables["period"][ids]
    inverse = np.linalg.inv(period + np.eye(3) * ~used[:, None, :]) * used[:, None, :] * used[:, :, None]
    return tables["map_linear"][rows], tables["map_shift"][rows], valid, period, inverse
