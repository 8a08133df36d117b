"""A crystal as its exact asymmetric unit: space group, lattice parameters, orbits with free coordinates."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from math import gcd, isfinite
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from nucleate.crystal.elements import mass_density
from nucleate.crystal.ragged import segment_positions
from nucleate.crystal.space_group import SpaceGroup, space_group
from nucleate.crystal.species import element_symbol
from nucleate.crystal.tables import group_arrays
from nucleate.crystal.unit_cell import UnitCell
from nucleate.crystal.wyckoff import WyckoffPosition
from nucleate.errors import InvalidStructureError, WyckoffError
from nucleate.shapes import Float, Int

if TYPE_CHECKING:
    from nucleate.crystal.encoded import EncodedStructure

CellKind = Literal["conventional", "primitive"]


@dataclass(frozen=True, eq=False)
class Crystal:
    """A crystal that cannot violate its own symmetry.

    ``Crystal = (space group G, lattice parameters, orbits [(position w, element z, free coordinates u)])``
    in the standard setting of G. Cell, atoms and distances follow by exact group action.

    Attributes:
        space_group_number: 1 to 230.
        lattice_params: (k,) free lattice parameters of ``LatticeSubspace``; the first is
            ``ln(volume per atom / Å^3) / sqrt(3)``.
        wyckoff_indices: Wyckoff position of each orbit, 0 for letter a.
        atomic_numbers: element of each orbit.
        free_coords: free coordinates u of each orbit; the columns from the position's ``num_free`` on are
            zero.

    Raises:
        WyckoffError: a position the group does not have, a position without free coordinates used twice, or a
            value in a column that is not free.
        InvalidStructureError: wrong number of lattice parameters, values that are not finite, no orbits.
    """

    space_group_number: int
    lattice_params: Float[np.ndarray, "k"]
    wyckoff_indices: Int[np.ndarray, "orbits"]
    atomic_numbers: Int[np.ndarray, "orbits"]
    free_coords: Float[np.ndarray, "orbits 3"]

    def __post_init__(self) -> None:
        group = space_group(self.space_group_number)
        if len(self.lattice_params) != group.lattice_subspace.num_params:
            raise InvalidStructureError(
                f"space group {group.number} ({group.symbol}) has {group.lattice_subspace.num_params} free "
                f"lattice parameters, got {len(self.lattice_params)}"
            )
        if not len(self.wyckoff_indices) == len(self.atomic_numbers) == len(self.free_coords):
            raise InvalidStructureError(
                f"every orbit needs a position, an element and free coordinates, got {len(self.wyckoff_indices)}, "
                f"{len(self.atomic_numbers)} and {len(self.free_coords)} of them"
            )
        if not len(self.wyckoff_indices):
            raise InvalidStructureError("a crystal needs at least one orbit, got none")
        # Plain lists: a crystal has few orbits, and each array operation costs more than going over all of them.
        indices, free = self.wyckoff_indices.tolist(), self.free_coords.tolist()
        if not all(map(isfinite, self.lattice_params.tolist())) or not all(
            isfinite(sum(row)) for row in free
        ):
            raise InvalidStructureError("lattice parameters and free coordinates must be finite numbers")
        if min(indices) < 0 or max(indices) >= len(group.letters):
            raise WyckoffError(
                f"space group {group.number} ({group.symbol}) has Wyckoff positions 0 to "
                f"{len(group.letters) - 1}, got {indices}"
            )
        num_free = [group.num_free_coords[i] for i in indices]
        if any(any(row[d:]) for row, d in zip(free, num_free)):
            raise WyckoffError(
                f"orbits on {', '.join(self.wyckoff_letters)} have {num_free} free coordinates; "
                f"the other columns of free_coords must be zero: {free}"
            )
        fixed = [i for i, d in zip(indices, num_free) if d == 0]
        if len(set(fixed)) < len(fixed):
            repeated = [group.wyckoff_positions[i].label for i, n in Counter(fixed).items() if n > 1]
            raise WyckoffError(
                f"Wyckoff position {', '.join(repeated)} of space group {group.number} has no free "
                "coordinate and holds one orbit only, but is used more than once"
            )

    # ---- the tuple, read differently -----------------------------------------------------------------------

    @property
    def group(self) -> SpaceGroup:
        """The space group."""
        return space_group(self.space_group_number)

    @property
    def num_orbits(self) -> int:
        """Number of orbits (atoms of the asymmetric unit)."""
        return len(self.wyckoff_indices)

    @cached_property
    def position_ids(self) -> Int[np.ndarray, "orbits"]:
        """Row of each orbit's position among all 1,731 positions."""
        return self.wyckoff_indices + self.group.position_start

    @property
    def num_free(self) -> Int[np.ndarray, "orbits"]:
        """Number of free coordinates of each orbit."""
        return group_arrays()["num_free"][self.position_ids]

    @property
    def num_free_coords(self) -> int:
        """Total number of free coordinates."""
        return int(self.num_free.sum())

    @property
    def positions(self) -> tuple[WyckoffPosition, ...]:
        """Wyckoff position of each orbit."""
        table = self.group.wyckoff_positions
        return tuple(table[i] for i in self.wyckoff_indices)

    @property
    def wyckoff_letters(self) -> tuple[str, ...]:
        """Wyckoff letter of each orbit."""
        letters = self.group.letters
        return tuple(letters[i] for i in self.wyckoff_indices)

    @property
    def multiplicities_primitive(self) -> Int[np.ndarray, "orbits"]:
        """Atoms of each orbit per primitive cell."""
        return group_arrays()["num_images"][self.position_ids]

    @property
    def multiplicities(self) -> Int[np.ndarray, "orbits"]:
        """Atoms of each orbit per conventional cell."""
        return self.multiplicities_primitive * self.group.num_centrings

    @property
    def num_atoms_primitive(self) -> int:
        """Atoms per primitive cell."""
        return int(self.multiplicities_primitive.sum())

    @property
    def num_atoms(self) -> int:
        """Atoms per conventional cell."""
        return self.num_atoms_primitive * self.group.num_centrings

    @property
    def volume_per_atom(self) -> float:
        """Volume per atom in Å^3."""
        return float(np.exp(3**0.5 * self.lattice_params[0]))

    @property
    def density(self) -> float:
        """Mass density in g/cm^3, with the natural mixture of isotopes."""
        return mass_density(self.composition, self.num_atoms_primitive * self.volume_per_atom)

    @property
    def composition(self) -> dict[int, int]:
        """Atoms of each element per primitive cell, by atomic number."""
        counts: Counter[int] = Counter()
        for z, m in zip(self.atomic_numbers.tolist(), self.multiplicities_primitive.tolist()):
            counts[z] += m
        return dict(sorted(counts.items()))

    @property
    def formula(self) -> str:
        """Reduced formula, elements in alphabetical order of their symbols: ``O3SrTi``."""
        counts = self.composition
        divisor = gcd(*counts.values())
        parts = sorted((element_symbol(z), n // divisor) for z, n in counts.items())
        return "".join(f"{symbol}{n if n > 1 else ''}" for symbol, n in parts)

    # ---- the cell and its atoms ----------------------------------------------------------------------------

    @cached_property
    def lattice(self) -> Float[np.ndarray, "3 3"]:
        """Conventional lattice, rows a, b, c in Å, in the frame ``A_ref exp(S)``."""
        return self.group.lattice_subspace.to_lattice(self.lattice_params, num_atoms=self.num_atoms)

    @property
    def primitive_lattice(self) -> Float[np.ndarray, "3 3"]:
        """Primitive lattice, rows in Å, in the same frame."""
        return self.group.primitive_basis.T @ self.lattice

    @property
    def representatives(self) -> Float[np.ndarray, "orbits 3"]:
        """Fractional coordinates of each orbit's representative in the conventional cell, ``B u + c``."""
        tables, p = group_arrays(), self.position_ids
        return np.einsum("oij,oj->oi", tables["basis"][p], self.free_coords) + tables["origin"][p]

    @property
    def atom_to_orbit(self) -> Int[np.ndarray, "atoms"]:
        """Orbit of each atom of the primitive cell, in the order of ``unit_cell('primitive')``."""
        return np.repeat(np.arange(self.num_orbits), self.multiplicities_primitive)

    def image_coords(self) -> Float[np.ndarray, "atoms 3"]:
        """Conventional fractional coordinates of one primitive cell's atoms, orbit by orbit, not wrapped."""
        tables, p = group_arrays(), self.position_ids
        orbit, within = segment_positions(tables["num_images"][p])
        image = tables["images"][tables["image_start"][p][orbit] + within]
        operation = image + tables["operation_start"][self.space_group_number - 1]
        rotated = np.einsum("aij,aj->ai", tables["rotations"][operation], self.representatives[orbit])
        return rotated + tables["translations"][operation]

    def unit_cell(self, kind: CellKind = "conventional") -> UnitCell:
        """All atoms of the conventional or the primitive cell, coordinates in [0, 1)."""
        coords, orbit = self.image_coords(), self.atom_to_orbit
        if kind == "primitive":
            coords = coords @ np.linalg.inv(self.group.primitive_basis).T
            lattice = self.primitive_lattice
        else:
            centrings = self.group.centring_vectors
            coords = (coords[:, None, :] + centrings).reshape(-1, 3)
            orbit = np.repeat(orbit, len(centrings))
            lattice = self.lattice
        # A rounding error below a lattice plane counts as on it: 0, neither 1 nor -1e-16.
        wrapped = np.maximum(coords - np.floor(coords + 1e-12), 0.0)
        return UnitCell(lattice, wrapped, self.atomic_numbers[orbit].astype(np.int64))

    def check_orbits(self, *, distance: float = 0.01) -> None:
        """Nothing, if every orbit has as many atoms as its position says.

        Args:
            distance: images of one orbit nearer than this (Å) are one atom.

        Raises:
            WyckoffError: free coordinates so special that images of an orbit meet; the message names the position
                the point belongs to.
        """
        coords, orbit = self.image_coords(), self.atom_to_orbit
        first = np.cumsum(self.multiplicities_primitive) - self.multiplicities_primitive
        difference = (coords - coords[first[orbit]]) @ np.linalg.inv(self.group.primitive_basis).T
        lengths = np.linalg.norm((difference - np.rint(difference)) @ self.primitive_lattice, axis=1)
        lengths[first] = np.inf
        if lengths.min() >= distance:
            return
        worst = int(orbit[lengths.argmin()])
        position, free = self.positions[worst], self.free_coords[worst]
        special = next(
            p
            for p in self.group.wyckoff_positions
            if p.distance(position.coords(free[: position.num_free]), lattice=self.lattice) < distance
        )
        raise WyckoffError(
            f"orbit {worst} ({element_symbol(int(self.atomic_numbers[worst]))} on {position.label} of space group "
            f"{self.space_group_number}) at free coordinates {free[: position.num_free].tolist()} has images "
            f"{lengths.min():.4f} Å apart: the point belongs to position {special.label}"
        )

    # ---- to and from other conventions ---------------------------------------------------------------------

    @classmethod
    def from_structure(cls, structure: Any, **options: Any) -> EncodedStructure:
        """The exact asymmetric unit of a foreign structure, with the way back.

        Args:
            structure: UnitCell, pymatgen Structure, ASE Atoms, CIF text or POSCAR text.
            **options: those of ``nucleate.crystal.encoding.encode``: ``symprec`` (0.01 Å), ``max_atoms``,
                ``subgroup``, ``max_displacement``, ``max_strain``.

        Raises:
            InvalidStructureError, DisorderedStructureError, StructureTooLargeError, ParseError,
            SymmetryError.
        """
        # Symmetry search and foreign formats stay off the training path, where moyopy and pymatgen are
        # absent.
        from nucleate.crystal.convert import to_unit_cell  # noqa: PLC0415
        from nucleate.crystal.encoding import encode_checked  # noqa: PLC0415

        unit_cell = to_unit_cell(structure, max_atoms=options.pop("max_atoms", 1000))
        return encode_checked(unit_cell, **options)

    def to_structure(self, kind: CellKind = "conventional") -> Any:
        """A pymatgen Structure of the conventional or primitive cell."""
        from nucleate.crystal.convert import unit_cell_to_pymatgen  # noqa: PLC0415  pymatgen loads late

        return unit_cell_to_pymatgen(self.unit_cell(kind))

    def to_atoms(self, kind: CellKind = "conventional") -> Any:
        """ASE Atoms of the conventional or primitive cell."""
        from nucleate.crystal.convert import unit_cell_to_ase  # noqa: PLC0415  ASE loads late

        return unit_cell_to_ase(self.unit_cell(kind))

    def to_cif(self, name: str | None = None) -> str:
        """CIF text with operations, Wyckoff letters and multiplicities, nine digits."""
        from nucleate.crystal.cif import crystal_to_cif  # noqa: PLC0415  the writer imports this module

        return crystal_to_cif(self, name=name)

    def to_poscar(self, kind: CellKind = "conventional", *, comment: str | None = None) -> str:
        """POSCAR text (VASP 5, direct coordinates) of the conventional or primitive cell."""
        from nucleate.crystal.poscar import write_poscar  # noqa: PLC0415  keeps formats off the training path

        return write_poscar(self.unit_cell(kind), comment=comment or self.formula)

    # ---- comparison ----------------------------------------------------------------------------------------

    @cached_property
    def prototype_key(self) -> str:
        """Group, template and stoichiometric pattern, the same for every encoding and the mirror image."""
        from nucleate.crystal.canonical import prototype_key  # noqa: PLC0415  canonical forms are built on this class

        return prototype_key(self)

    @cached_property
    def bucket_key(self) -> str:
        """``prototype_key`` with the elements: crystals in different buckets are different."""
        from nucleate.crystal.canonical import bucket_key  # noqa: PLC0415  canonical forms are built on this class

        return bucket_key(self)

    def canonical(self) -> Crystal:
        """The canonical encoding of this crystal: one of all its encodings, the same whichever was given."""
        from nucleate.crystal.canonical import canonical_encoding  # noqa: PLC0415  built on this class

        return canonical_encoding(self)

    @property
    def is_chiral(self) -> bool:
        """Whether the space group holds proper operations only."""
        return self.group.is_sohncke

    @cached_property
    def handedness(self) -> int:
        """0 if the group has improper operations, otherwise +1 or -1, opposite for the mirror image."""
        from nucleate.crystal.canonical import handedness  # noqa: PLC0415  canonical forms are built on this class

        return handedness(self)

    def __repr__(self) -> str:
        orbits = ", ".join(
            f"{element_symbol(int(z))} {p.label} ({', '.join(f'{x:.4f}' for x in u[: p.num_free])})"
            if p.num_free
            else f"{element_symbol(int(z))} {p.label}"
            for z, p, u in zip(self.atomic_numbers, self.positions, self.free_coords)
        )
        return f"Crystal({self.formula}, {self.group.symbol} ({self.space_group_number}), {orbits})"
