"""Supercells for forces: the smallest one of two families that keeps every atom far enough from its own images."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np

from nucleate.crystal.crystal import CellKind, Crystal
from nucleate.errors import ConfigError, StructureTooLargeError
from nucleate.shapes import Float

Parity = Literal["any", "even"]


@dataclass(frozen=True)
class SupercellChoice:
    """A supercell of a crystal.

    Attributes:
        kind: the cell that is repeated.
        repeats: how often along its a, b and c.
        num_atoms: atoms of the supercell.
        length: smallest distance between opposite faces, Å: no atom is nearer to an image of itself.
        num_primitive: primitive cells in it, which is also the number of q points commensurate with it.
    """

    kind: CellKind
    repeats: tuple[int, int, int]
    num_atoms: int
    length: float
    num_primitive: int


def face_distances(lattice: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3"]:
    """Distances between opposite faces of a cell, ``h_i = V / |a_j x a_k|``, Å."""
    return 1.0 / np.linalg.norm(np.linalg.inv(lattice), axis=0)


def choose_supercell(
    crystal: Crystal, min_length: float, *, max_atoms: int = 500, parity: Parity = "any"
) -> SupercellChoice:
    """The supercell with the fewest atoms whose opposite faces are all at least ``min_length`` apart.

    Candidates are ``n_i`` conventional cells along each axis with the least ``n_i >= min_length / h_i``, and the same
    number n of primitive cells along each axis. Both keep the point group of the crystal: symmetry-equivalent axes
    have equal ``h_i``. A lattice vector that is not zero has a component of at least one ``h_i`` along a normal of
    a face, so no atom is nearer than ``min_length`` to its own image.

    Args:
        crystal: the crystal.
        min_length: least distance between opposite faces, Å.
        max_atoms: most atoms accepted.
        parity: ``even`` makes even numbers of the odd ones above one, so that the wave that alternates from cell to
            cell, the commonest instability, is commensurate wherever the cell is repeated.

    Raises:
        ConfigError: ``min_length`` is not positive.
        StructureTooLargeError: the supercell would have more than ``max_atoms``.
    """
    if not 0 < min_length < np.inf:
        raise ConfigError(f"the length of a supercell must be a positive number of Å, got {min_length}")
    choices = []
    for kind in ("conventional", "primitive"):
        conventional = kind == "conventional"
        lattice = crystal.lattice if conventional else crystal.primitive_lattice
        heights = face_distances(lattice)
        repeats = [max(1, ceil(min_length / height - 1e-8)) for height in heights]
        if parity == "even":
            repeats = [n if n == 1 else n + n % 2 for n in repeats]
        if not conventional:
            repeats = [max(repeats)] * 3
        cells = int(np.prod(repeats)) * (crystal.group.num_centrings if conventional else 1)
        a, b, c = repeats
        choices.append(
            SupercellChoice(
                "conventional" if conventional else "primitive",
                (a, b, c),
                cells * crystal.num_atoms_primitive,
                float((heights * repeats).min()),
                cells,
            )
        )
    best = min(choices, key=lambda choice: choice.num_atoms)
    if best.num_atoms > max_atoms:
        raise StructureTooLargeError(
            f"a supercell of {crystal.formula} with faces {min_length:g} Å apart has {best.num_atoms} atoms, more "
            f"than the {max_atoms} allowed; ask for a shorter length or more atoms"
        )
    return best
