"""The 230 space groups in their standard setting: operations, Wyckoff positions, lattices, normalizer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from nucleate.crystal.lattice import LatticeSubspace, lattice_subspace
from nucleate.crystal.normalizer import Normalizer, normalizer
from nucleate.crystal.tables import NUM_GROUPS, group_arrays, group_names
from nucleate.crystal.wyckoff import WyckoffPosition
from nucleate.errors import WyckoffError
from nucleate.shapes import Float, Int


@dataclass(frozen=True, eq=False)
class SpaceGroup:
    """A space group in the standard setting of International Tables A.

    Unique axis b and cell choice 1 (monoclinic), hexagonal axes (rhombohedral), origin choice 2. Operations
    act on fractional coordinates of the conventional cell, ``x -> W x + t``; they are coset representatives
    modulo the full translation lattice T, which ``centring_vectors`` and the unit vectors generate. Get one
    from ``space_group(number)``.

    Attributes:
        number: 1 to 230.
        symbol: short Hermann-Mauguin symbol; ``symbol_full`` the full one; ``hall_symbol`` and
            ``hall_number`` (1-530).
        crystal_system, lattice_system, point_group: names in lower case; Hermann-Mauguin point-group symbol.
        rotations: W of the coset representatives, the identity first; ``translations`` t in [0, 1).
        centring_vectors: lattice points of the conventional cell, the origin first.
        primitive_basis: columns are primitive lattice vectors in conventional coordinates.
    """

    number: int
    symbol: str
    symbol_full: str
    hall_number: int
    hall_symbol: str
    crystal_system: str
    lattice_system: str
    point_group: str
    rotations: Int[np.ndarray, "operations 3 3"]
    translations: Float[np.ndarray, "operations 3"]
    centring_vectors: Float[np.ndarray, "centrings 3"]
    primitive_basis: Float[np.ndarray, "3 3"]
    letters: str
    position_start: int

    @property
    def num_operations(self) -> int:
        """Order of the point group: operations modulo lattice translations."""
        return len(self.rotations)

    @property
    def num_centrings(self) -> int:
        """Lattice points per conventional cell."""
        return len(self.centring_vectors)

    @property
    def is_sohncke(self) -> bool:
        """Whether the group holds proper operations only, so that its crystals can be chiral (65 groups)."""
        return bool((np.linalg.det(self.rotations) > 0).all())

    @property
    def lattice_subspace(self) -> LatticeSubspace:
        """The lattices this group allows."""
        return lattice_subspace(self.lattice_system)

    @property
    def normalizer(self) -> Normalizer:
        """The chirality-preserving affine normalizer modulo the group."""
        return normalizer(self.number)

    @cached_property
    def wyckoff_positions(self) -> tuple[WyckoffPosition, ...]:
        """All Wyckoff positions, letter a first, the general position last."""
        return tuple(self._position(i) for i in range(len(self.letters)))

    @cached_property
    def num_free_coords(self) -> tuple[int, ...]:
        """Number of free coordinates of each Wyckoff position."""
        positions = slice(self.position_start, self.position_start + len(self.letters))
        return tuple(group_arrays()["num_free"][positions].tolist())

    def wyckoff_position(self, letter: str) -> WyckoffPosition:
        """The position with this letter.

        Raises:
            WyckoffError: the group has no such letter.
        """
        index = self.letters.find(letter)
        if index < 0 or len(letter) != 1:
            raise WyckoffError(
                f"space group {self.number} ({self.symbol}) has Wyckoff letters "
                f"{self.letters[0]} to {self.letters[-1]}, not {letter!r}"
            )
        return self.wyckoff_positions[index]

    def all_operations(self) -> tuple[Int[np.ndarray, "n 3 3"], Float[np.ndarray, "n 3"]]:
        """Every operation of the conventional cell as (rotations, translations), centrings outermost."""
        translations = self.centring_vectors[:, None, :] + self.translations
        return np.tile(self.rotations, (self.num_centrings, 1, 1)), translations.reshape(-1, 3) % 1.0

    def _position(self, index: int) -> WyckoffPosition:
        tables = group_arrays()
        p = self.position_start + index
        d = int(tables["num_free"][p])
        images = tables["images"][tables["image_start"][p] : tables["image_start"][p + 1]]
        stabiliser = slice(tables["stabiliser_start"][p], tables["stabiliser_start"][p + 1])
        members = tables["stabiliser"][stabiliser]
        maps = slice(tables["map_start"][p], tables["map_start"][p + 1])
        return WyckoffPosition(
            space_group_number=self.number,
            letter=self.letters[index],
            index=index,
            multiplicity=len(images) * self.num_centrings,
            multiplicity_primitive=len(images),
            site_symmetry=group_names()[self.number - 1]["site_symmetries"][index],
            basis=tables["basis"][p][:, :d],
            origin=tables["origin"][p],
            rotations=self.rotations[images],
            translations=self.translations[images],
            operation_indices=images,
            stabiliser_rotations=self.rotations[members],
            stabiliser_translations=self.translations[members] + tables["stabiliser_shifts"][stabiliser],
            period_lattice=tables["period"][p][:d, :d],
            identification_linear=tables["map_linear"][maps][:, :d, :d],
            identification_shift=tables["map_shift"][maps][:, :d],
            functionals=tables["functionals"][p][: 3 - d],
            section=tables["section"][p][:, : 3 - d],
            centring_vectors=self.centring_vectors,
        )


@cache
def space_group(number: int) -> SpaceGroup:
    """The space group with this number in its standard setting.

    Raises:
        WyckoffError: the number is not 1 to 230.
    """
    if not 1 <= number <= NUM_GROUPS:
        raise WyckoffError(f"space group numbers run from 1 to {NUM_GROUPS}, got {number}")
    tables, names = group_arrays(), group_names()[number - 1]
    operations = slice(tables["operation_start"][number - 1], tables["operation_start"][number])
    centrings = slice(tables["centring_start"][number - 1], tables["centring_start"][number])
    return SpaceGroup(
        number=number,
        symbol=names["symbol"],
        symbol_full=names["symbol_full"],
        hall_number=names["hall_number"],
        hall_symbol=names["hall_symbol"],
        crystal_system=names["crystal_system"],
        lattice_system=names["lattice_system"],
        point_group=names["point_group"],
        rotations=tables["rotations"][operations],
        translations=tables["translations"][operations],
        centring_vectors=tables["centrings"][centrings],
        primitive_basis=tables["primitive"][number - 1],
        letters=names["letters"],
        position_start=int(tables["position_start"][number - 1]),
    )
