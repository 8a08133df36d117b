"""Negative controls: sets that are wrong, or the same, in one known way, so that every metric can be put to the test.

A metric that does not fall on shuffled species does not see chemistry; one that changes with the choice of the
cell does not measure the crystal. Each control takes unit cells and returns unit cells; users can score controls of
their own data beside their generator's crystals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nucleate.crystal import Crystal, UnitCell, encode
from nucleate.errors import ConfigError
from nucleate.evaluation.random_symmetry import random_symmetric_crystal
from nucleate.shapes import Float, Int


@dataclass(frozen=True)
class Control:
    """A change that is made to every crystal of a set.

    Attributes:
        name: short name.
        description: what it changes, and what it leaves.
        apply: cells and a random generator to the cells of the control.
    """

    name: str
    description: str
    apply: Callable[[Sequence[UnitCell], np.random.Generator], list[UnitCell]]


# ---- chemistry ---------------------------------------------------------------------------------------------


def shuffle_species(unit_cells: Sequence[UnitCell], rng: np.random.Generator) -> list[UnitCell]:
    """The same cells with the elements dealt anew over the set.

    Every element of every crystal is one card; the cards are shuffled and each crystal gets as many different ones
    as it had elements, so that geometry, symmetry, number of elements and the number of crystals that hold each
    element stay as they were. Compositions become nonsense.
    """
    held = [np.unique(cell.atomic_numbers) for cell in unit_cells]
    if not held:
        return []
    cards = np.concatenate(held)
    owner = np.repeat(np.arange(len(held)), [len(numbers) for numbers in held])
    dealt = _without_repeats(rng.permutation(cards), owner, rng)
    result = []
    for index, (cell, numbers) in enumerate(zip(unit_cells, held)):
        new = dict(zip(numbers.tolist(), rng.permutation(dealt[owner == index]).tolist()))
        changed = np.array([new[z] for z in cell.atomic_numbers.tolist()], dtype=np.int64)
        result.append(UnitCell(cell.lattice, cell.frac_coords, changed))
    return result


def _without_repeats(
    cards: Int[np.ndarray, "cards"], owner: Int[np.ndarray, "cards"], rng: np.random.Generator
) -> Int[np.ndarray, "cards"]:
    """The cards, exchanged between owners until nobody holds two of a kind."""
    cards = cards.copy()
    hands = [set(cards[owner == i].tolist()) for i in range(int(owner.max()) + 1)]
    for place in range(len(cards)):
        same = np.flatnonzero((owner == owner[place]) & (cards == cards[place]))
        if len(same) == 1:
            continue
        for other in rng.permutation(len(cards)).tolist():
            mine, theirs = hands[owner[place]], hands[owner[other]]
            fits = cards[other] not in mine and cards[place] not in theirs
            twice = int(((owner == owner[other]) & (cards == cards[other])).sum()) > 1
            if fits and not twice and owner[other] != owner[place]:
                theirs.discard(int(cards[other]))
                theirs.add(int(cards[place]))
                mine.add(int(cards[other]))
                cards[place], cards[other] = cards[other], cards[place]
                break
        else:
            raise ConfigError(
                f"the elements of {len(hands)} crystals cannot be dealt so that none has two of a kind: take more "
                "crystals"
            )
    return cards


# ---- geometry ----------------------------------------------------------------------------------------------


def random_symmetric(unit_cells: Sequence[UnitCell], rng: np.random.Generator) -> list[UnitCell]:
    """Crystals of the same compositions and volumes in groups of the set drawn at random, and random positions.

    Symmetry is exact and of the same groups, composition is that of real crystals, but no atom is where an energy
    would put it.
    """
    crystals = [encode(cell).crystal for cell in unit_cells]
    groups = [crystal.space_group_number for crystal in crystals]
    return [
        random_symmetric_crystal(
            crystal.composition, groups=groups, volume_per_atom=crystal.volume_per_atom, rng=rng
        ).unit_cell("primitive")
        for crystal in crystals
    ]


def rattle_in_symmetry(
    unit_cells: Sequence[UnitCell],
    rng: np.random.Generator,
    *,
    displacement: float = 0.4,
    strain: float = 0.05,
) -> list[UnitCell]:
    """The crystals with free coordinates and cell shape moved at random; space group and template stay exactly.

    A crystal without free coordinates keeps its atoms, a cubic one its shape; volumes stay.

    Args:
        unit_cells: the set.
        rng: draws the moves.
        displacement: standard deviation per Cartesian direction of each free point, Å.
        strain: standard deviation of the lattice parameters beside volume (logarithmic strains).
    """
    return [
        rattled_crystal(encode(cell).crystal, rng, displacement=displacement, strain=strain).unit_cell(
            "primitive"
        )
        for cell in unit_cells
    ]


def rattled_crystal(
    crystal: Crystal, rng: np.random.Generator, *, displacement: float = 0.4, strain: float = 0.05
) -> Crystal:
    """A crystal with free coordinates and cell shape moved at random inside its own symmetry.

    With B the basis of a position and A the lattice, a normal Cartesian step r of the point is projected onto what
    is free: ``du = (B^T G B)^-1 B^T A r``, ``G = A A^T``.
    """
    params = crystal.lattice_params.copy()
    params[1:] += rng.normal(0.0, strain, size=len(params) - 1)
    free = crystal.free_coords.copy()
    lattice = crystal.lattice
    for row, position in zip(free, crystal.positions):
        if position.num_free:
            step = rng.normal(0.0, displacement, size=3)
            normal = position.basis.T @ lattice
            row[: position.num_free] += np.linalg.solve(normal @ normal.T, normal @ step)
    return Crystal(crystal.space_group_number, params, crystal.wyckoff_indices, crystal.atomic_numbers, free)


def rattle_to_p1(
    unit_cells: Sequence[UnitCell],
    rng: np.random.Generator,
    *,
    displacement: float = 0.15,
    strain: float = 0.02,
) -> list[UnitCell]:
    """The cells with every atom moved on its own and the lattice sheared: no symmetry is left.

    Args:
        unit_cells: the set.
        rng: draws the moves.
        displacement: standard deviation per Cartesian direction, Å.
        strain: standard deviation of the entries of the strain of the lattice.
    """
    result = []
    for cell in unit_cells:
        moves = rng.normal(0.0, displacement, size=cell.frac_coords.shape) @ np.linalg.inv(cell.lattice)
        noise = rng.normal(0.0, strain, size=(3, 3))
        lattice = cell.lattice @ (np.eye(3) + (noise + noise.T) / 2)
        result.append(UnitCell(lattice, cell.frac_coords + moves, cell.atomic_numbers))
    return result


def compress(
    unit_cells: Sequence[UnitCell], rng: np.random.Generator | None = None, *, factor: float = 0.6
) -> list[UnitCell]:
    """The cells with all lengths multiplied by ``factor``; symmetry and composition stay.

    Raises:
        ConfigError: the factor is not positive.
    """
    if not factor > 0:
        raise ConfigError(f"lengths are multiplied by a positive factor, got {factor}")
    return [UnitCell(cell.lattice * factor, cell.frac_coords, cell.atomic_numbers) for cell in unit_cells]


# ---- the same crystals again -------------------------------------------------------------------------------


def duplicate(unit_cells: Sequence[UnitCell], rng: np.random.Generator, *, copies: int = 3) -> list[UnitCell]:
    """Every cell ``copies`` times, each copy turned, shifted and in another order of its atoms.

    Raises:
        ConfigError: fewer than one copy.
    """
    if copies < 1:
        raise ConfigError(f"a set of copies needs at least one of each, got {copies}")
    return [_described_anew(cell, rng) for cell in unit_cells for _ in range(copies)]


def mirror_image(unit_cells: Sequence[UnitCell], rng: np.random.Generator | None = None) -> list[UnitCell]:
    """The cells inverted through the origin: the other hand of chiral crystals, the same crystal otherwise."""
    return [UnitCell(cell.lattice, -cell.frac_coords, cell.atomic_numbers) for cell in unit_cells]


def supercell(
    unit_cells: Sequence[UnitCell],
    rng: np.random.Generator | None = None,
    *,
    matrix: Sequence[int] = (1, 1, 2),
) -> list[UnitCell]:
    """The cells repeated ``matrix`` times along a, b and c: the same crystals.

    Raises:
        ConfigError: a number below one.
    """
    times = np.asarray(matrix, dtype=np.int64)
    if times.shape != (3,) or (times < 1).any():
        raise ConfigError(f"a supercell is given by three numbers of at least 1, got {tuple(matrix)}")
    shifts = np.stack(np.meshgrid(*map(np.arange, times), indexing="ij"), axis=-1).reshape(-1, 3)
    return [
        UnitCell(
            cell.lattice * times[:, None],
            ((cell.frac_coords[:, None, :] + shifts) / times).reshape(-1, 3),
            np.repeat(cell.atomic_numbers, len(shifts)),
        )
        for cell in unit_cells
    ]


def redescribe(unit_cells: Sequence[UnitCell], rng: np.random.Generator) -> list[UnitCell]:
    """The same crystals in other frames, with other origins, cells and orders of atoms: nothing may change."""
    return [_described_anew(cell, rng) for cell in unit_cells]


def _described_anew(cell: UnitCell, rng: np.random.Generator) -> UnitCell:
    order = rng.permutation(cell.num_atoms)
    # a, b, c -> a, b + m a, c + n b: another cell of the same lattice.
    change = np.eye(3)
    change[1, 0], change[2, 1] = rng.integers(-1, 2, size=2)
    coords = cell.frac_coords[order] @ np.linalg.inv(change) + rng.random(3)
    return UnitCell(change @ cell.lattice @ _rotation(rng), coords, cell.atomic_numbers[order])


def _rotation(rng: np.random.Generator) -> Float[np.ndarray, "3 3"]:
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


CONTROLS: Mapping[str, Control] = {
    control.name: control
    for control in (
        Control("shuffled_species", "elements dealt anew over the set; geometry stays", shuffle_species),
        Control(
            "random_symmetric", "same composition, random group, positions and coordinates", random_symmetric
        ),
        Control(
            "rattled_in_symmetry", "free coordinates and cell shape moved, group kept", rattle_in_symmetry
        ),
        Control("rattled_to_p1", "every atom moved on its own, cell sheared", rattle_to_p1),
        Control("compressed", "all lengths times 0.6", compress),
        Control("duplicates", "every crystal three times, each in another description", duplicate),
        Control("mirror_images", "inverted through the origin", mirror_image),
        Control("supercells", "repeated twice along c", supercell),
        Control("redescribed", "other frame, origin, cell and order of atoms", redescribe),
    )
}
"""Every control by its name. The first five are wrong crystals, the rest are the same crystals."""


def control_set(name: str, unit_cells: Sequence[UnitCell], *, seed: int = 0) -> list[UnitCell]:
    """The control of this name of a set of cells.

    Raises:
        ConfigError: there is no such control.
    """
    if name not in CONTROLS:
        raise ConfigError(f"There is no control {name!r}; there are {', '.join(CONTROLS)}")
    return CONTROLS[name].apply(unit_cells, np.random.default_rng(seed))
