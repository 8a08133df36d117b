"""Many crystals as ragged tensors: orbits laid end to end, expanded to atoms by exact group action."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property

import numpy as np
import torch
from torch import Tensor

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.lattice_torch import MAX_LATTICE_PARAMS, free_lattice_params, lattices_from_params
from nucleate.crystal.tables import group_arrays
from nucleate.errors import InvalidStructureError
from nucleate.shapes import Float, Int

_INTEGER_TABLES = ("image_start", "num_images", "images", "operation_start", "position_start", "num_free")
_FLOAT_TABLES = (
    "rotations",
    "translations",
    "basis",
    "origin",
    "primitive",
    "to_primitive",
    "mean_rotations",
)


@cache
def group_tensors(device: torch.device, dtype: torch.dtype) -> Mapping[str, Tensor]:
    """The tables of all groups as tensors on a device; integers as int64, the rest in ``dtype``."""
    arrays = group_arrays()
    tensors = {name: torch.tensor(arrays[name], dtype=torch.int64, device=device) for name in _INTEGER_TABLES}
    tensors |= {
        name: torch.tensor(arrays[name], dtype=torch.float64).to(device, dtype) for name in _FLOAT_TABLES
    }
    centrings = np.diff(arrays["centring_start"])
    tensors["num_centrings"] = torch.tensor(
        np.concatenate([[0], centrings]), dtype=torch.int64, device=device
    )
    return tensors


@dataclass(frozen=True, eq=False)
class Atoms:
    """The atoms of one primitive cell of every crystal of a batch, orbit by orbit.

    Attributes:
        orbit: orbit of each atom.
        crystal: crystal of each atom.
        operation: row of its operation in the table of all groups.
        rotations: W in fractional coordinates.
        frac_coords: ``W f(u) + t``, conventional fractional coordinates, not wrapped.
        cart_coords: Å, in the frame of the batch's lattices.
        cart_rotations: R with ``r = R r_representative`` for column vectors: an equivariant feature of the
            atom is that of its orbit's representative rotated by R (improper for improper operations).
    """

    orbit: Int[Tensor, "atoms"]
    crystal: Int[Tensor, "atoms"]
    operation: Int[Tensor, "atoms"]
    rotations: Float[Tensor, "atoms 3 3"]
    frac_coords: Float[Tensor, "atoms 3"]
    cart_coords: Float[Tensor, "atoms 3"]
    cart_rotations: Float[Tensor, "atoms 3 3"]


@dataclass(frozen=True, eq=False)
class CrystalBatch:
    """Crystals as ragged tensors; see ``Crystal`` for the meaning of each field.

    Attributes:
        space_group_number: group of each crystal.
        lattice_params: free lattice parameters, zeros beyond those the group has.
        num_orbits: orbits of each crystal.
        position_ids: row of each orbit's Wyckoff position among all 1,731 (``position_start`` of the group +
            letter).
        atomic_numbers: element of each orbit.
        free_coords: free coordinates of each orbit, zeros beyond those the position has.
    """

    space_group_number: Int[Tensor, "crystals"]
    lattice_params: Float[Tensor, "crystals 6"]
    num_orbits: Int[Tensor, "crystals"]
    position_ids: Int[Tensor, "orbits"]
    atomic_numbers: Int[Tensor, "orbits"]
    free_coords: Float[Tensor, "orbits 3"]

    # ---- making, moving, cutting and joining ---------------------------------------------------------------

    @classmethod
    def from_crystals(
        cls, crystals: Sequence[Crystal], *, dtype: torch.dtype = torch.float64
    ) -> CrystalBatch:
        """The crystals, in order, on the CPU."""
        params = np.zeros((len(crystals), MAX_LATTICE_PARAMS))
        for row, crystal in zip(params, crystals):
            row[: len(crystal.lattice_params)] = crystal.lattice_params
        return cls.from_arrays(
            space_group_number=np.array([c.space_group_number for c in crystals], dtype=np.int64),
            lattice_params=params,
            num_orbits=np.array([c.num_orbits for c in crystals], dtype=np.int64),
            wyckoff_indices=_joined([c.wyckoff_indices for c in crystals], np.zeros(0, dtype=np.int64)),
            atomic_numbers=_joined([c.atomic_numbers for c in crystals], np.zeros(0, dtype=np.int64)),
            free_coords=_joined([c.free_coords for c in crystals], np.zeros((0, 3))),
            dtype=dtype,
        )

    @classmethod
    def from_arrays(
        cls,
        *,
        space_group_number: Int[np.ndarray, "crystals"],
        lattice_params: Float[np.ndarray, "crystals 6"],
        num_orbits: Int[np.ndarray, "crystals"],
        wyckoff_indices: Int[np.ndarray, "orbits"],
        atomic_numbers: Int[np.ndarray, "orbits"],
        free_coords: Float[np.ndarray, "orbits 3"],
        dtype: torch.dtype = torch.float64,
    ) -> CrystalBatch:
        """A batch from the flat arrays a store yields, on the CPU.

        Raises:
            InvalidStructureError: the orbits do not add up.
        """
        if int(num_orbits.sum()) != len(wyckoff_indices):
            raise InvalidStructureError(
                f"num_orbits add up to {int(num_orbits.sum())}, got {len(wyckoff_indices)} orbits"
            )
        start = group_arrays()["position_start"][space_group_number - 1]
        return cls(
            space_group_number=torch.as_tensor(space_group_number, dtype=torch.int64),
            lattice_params=torch.as_tensor(lattice_params, dtype=dtype),
            num_orbits=torch.as_tensor(num_orbits, dtype=torch.int64),
            position_ids=torch.as_tensor(np.repeat(start, num_orbits) + wyckoff_indices, dtype=torch.int64),
            atomic_numbers=torch.as_tensor(atomic_numbers, dtype=torch.int64),
            free_coords=torch.as_tensor(free_coords, dtype=dtype),
        )

    @classmethod
    def cat(cls, batches: Sequence[CrystalBatch]) -> CrystalBatch:
        """The crystals of all batches, in order."""
        return cls(**{f.name: torch.cat([getattr(b, f.name) for b in batches]) for f in fields(cls)})

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> CrystalBatch:
        """The batch on another device or in another floating-point type."""
        moved = {}
        for f in fields(self):
            tensor = getattr(self, f.name)
            moved[f.name] = tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)
        return CrystalBatch(**moved)

    def replace(self, **changes: Tensor) -> CrystalBatch:
        """The batch with some fields exchanged, such as noisy ``free_coords``."""
        return replace(self, **changes)

    def __len__(self) -> int:
        return len(self.space_group_number)

    def __getitem__(self, index: int | slice | Tensor) -> CrystalBatch:
        """The chosen crystals as a batch; an integer gives a batch of one."""
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(f"the batch has {len(self)} crystals, asked for {index}")
            index = slice(index % len(self), index % len(self) + 1)
        if isinstance(index, slice):
            places = range(len(self))[index]  # torch slices refuse negative steps
            chosen = places.start + places.step * torch.arange(len(places), device=self.device)
        else:
            chosen = torch.arange(len(self), device=self.device)[index].reshape(-1)
        orbits = self.orbits_of(chosen)
        return CrystalBatch(
            self.space_group_number[chosen],
            self.lattice_params[chosen],
            self.num_orbits[chosen],
            self.position_ids[orbits],
            self.atomic_numbers[orbits],
            self.free_coords[orbits],
        )

    def orbits_of(self, chosen: Int[Tensor, "chosen"]) -> Int[Tensor, "orbits"]:
        """Rows of the orbits of some crystals, in the order of these."""
        row, within = ragged_rows(self.num_orbits[chosen])
        return self.orbit_start[chosen][row] + within

    def to_crystals(self) -> list[Crystal]:
        """The crystals as numpy objects, in order."""
        free = free_lattice_params(self.space_group_number).sum(dim=1).tolist()
        start = group_arrays()["position_start"]
        crystals = []
        ends = self.num_orbits.cumsum(0).tolist()
        numbers = self.space_group_number.tolist()
        params, coords = (x.detach().cpu().double().numpy() for x in (self.lattice_params, self.free_coords))
        positions, elements = self.position_ids.cpu().numpy(), self.atomic_numbers.cpu().numpy()
        begin = 0
        for i, end in enumerate(ends):
            rows = slice(begin, end)
            crystals.append(
                Crystal(
                    numbers[i],
                    params[i, : free[i]].copy(),
                    positions[rows] - start[numbers[i] - 1],
                    elements[rows].copy(),
                    coords[rows].copy(),
                )
            )
            begin = end
        return crystals

    # ---- what follows from the fields ----------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Device of every tensor."""
        return self.free_coords.device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of lattice parameters and free coordinates."""
        return self.free_coords.dtype

    @property
    def tables(self) -> Mapping[str, Tensor]:
        """Tables of all groups on this device in this type."""
        return group_tensors(self.device, self.dtype)

    @cached_property
    def orbit_start(self) -> Int[Tensor, "crystals"]:
        """First orbit of each crystal."""
        return self.num_orbits.cumsum(0) - self.num_orbits

    @cached_property
    def orbit_to_crystal(self) -> Int[Tensor, "orbits"]:
        """Crystal of each orbit."""
        return torch.repeat_interleave(torch.arange(len(self), device=self.device), self.num_orbits)

    @cached_property
    def multiplicities(self) -> Int[Tensor, "orbits"]:
        """Atoms of each orbit per primitive cell."""
        return self.tables["num_images"][self.position_ids]

    @property
    def num_free(self) -> Int[Tensor, "orbits"]:
        """Free coordinates of each orbit."""
        return self.tables["num_free"][self.position_ids]

    @cached_property
    def num_atoms_primitive(self) -> Int[Tensor, "crystals"]:
        """Atoms per primitive cell."""
        zeros = torch.zeros(len(self), dtype=torch.int64, device=self.device)
        return zeros.index_add_(0, self.orbit_to_crystal, self.multiplicities)

    @property
    def num_atoms(self) -> Int[Tensor, "crystals"]:
        """Atoms per conventional cell."""
        return self.num_atoms_primitive * self.tables["num_centrings"][self.space_group_number]

    @property
    def volume_per_atom(self) -> Float[Tensor, "crystals"]:
        """Volume per atom in Å^3."""
        return (3**0.5 * self.lattice_params[:, 0]).exp()

    @property
    def length_unit(self) -> Float[Tensor, "crystals"]:
        """(Volume per atom)^(1/3) in Å, as an exponential: torch's power rounds otherwise at the end of an array."""
        return (3**-0.5 * self.lattice_params[:, 0]).exp()

    def lattices(self) -> Float[Tensor, "crystals 3 3"]:
        """Conventional lattices, rows a, b, c in Å, differentiable in ``lattice_params``."""
        return lattices_from_params(self.space_group_number, self.lattice_params, self.num_atoms)

    def primitive_lattices(self) -> Float[Tensor, "crystals 3 3"]:
        """Primitive lattices, rows in Å, in the same frame."""
        return self.tables["primitive"][self.space_group_number - 1].mT @ self.lattices()

    def representatives(self) -> Float[Tensor, "orbits 3"]:
        """``B u + c`` of each orbit in the conventional cell, differentiable in ``free_coords``."""
        tables = self.tables
        return (tables["basis"][self.position_ids] @ self.free_coords[:, :, None])[:, :, 0] + tables[
            "origin"
        ][self.position_ids]

    def atoms(self) -> Atoms:
        """All atoms of one primitive cell per crystal by group action, differentiable in both fields."""
        tables = self.tables
        counts = self.multiplicities
        orbit, within = ragged_rows(counts)
        crystal = self.orbit_to_crystal[orbit]
        number = self.space_group_number[crystal]
        image = tables["images"][tables["image_start"][self.position_ids][orbit] + within]
        operation = image + tables["operation_start"][number - 1]
        rotations = tables["rotations"][operation]
        frac = (rotations @ self.representatives()[orbit][:, :, None])[:, :, 0] + tables["translations"][
            operation
        ]
        lattices = self.lattices()
        cart = (frac[:, None, :] @ lattices[crystal])[:, 0]
        columns = lattices.mT
        cart_rotations = columns[crystal] @ rotations @ torch.linalg.inv(columns)[crystal]
        return Atoms(orbit, crystal, operation, rotations, frac, cart, cart_rotations)


def ragged_rows(counts: Int[Tensor, "rows"]) -> tuple[Int[Tensor, "items"], Int[Tensor, "items"]]:
    """(row, place within the row) of every item of rows of the given lengths laid end to end."""
    row = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    return row, torch.arange(len(row), device=counts.device) - (counts.cumsum(0) - counts)[row]


def _joined(arrays: list[np.ndarray], empty: np.ndarray) -> np.ndarray:
    return np.concatenate(arrays) if arrays else empty
