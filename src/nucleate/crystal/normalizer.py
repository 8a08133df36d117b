"""The affine normalizer of a space group modulo the group: all encodings of one crystal."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product

import numpy as np

from nucleate.crystal.tables import group_arrays, normalizer_arrays
from nucleate.shapes import Float, Int

_MAX_SCREW_ORDER = 6  # a period of the phase is at most this often in a lattice vector


@dataclass(frozen=True, eq=False)
class EncodingMaps:
    """Changes of encoding ``x -> L x + s`` with what they do to every Wyckoff position of the group.

    An orbit on position w with free coordinates u is, after element e, an orbit on position
    ``permutations[e, w]`` with free coordinates ``map_linear[e, w] u + map_shift[e, w]`` (3-vectors, unused
    components zero). The lattice rows become ``L^-T A``.
    """

    linear: Int[np.ndarray, "e 3 3"]
    shifts: Float[np.ndarray, "e 3"]
    permutations: Int[np.ndarray, "e positions"]
    map_linear: Float[np.ndarray, "e positions 3 3"]
    map_shift: Float[np.ndarray, "e positions 3"]

    def __len__(self) -> int:
        return len(self.linear)

    def take(self, index: np.ndarray | slice) -> EncodingMaps:
        """The chosen elements."""
        return EncodingMaps(
            self.linear[index],
            self.shifts[index],
            self.permutations[index],
            self.map_linear[index],
            self.map_shift[index],
        )

    def then(self, after: EncodingMaps) -> EncodingMaps:
        """Every element of this followed by every element of ``after``, the latter varying fastest."""
        n, m = len(self), len(after)
        i, j = np.repeat(np.arange(n), m), np.tile(np.arange(m), n)
        first, second = self.take(i), after.take(j)
        rows = np.arange(n * m)[:, None]
        linear = second.map_linear[rows, first.permutations]
        shift = second.map_shift[rows, first.permutations]
        return EncodingMaps(
            linear=second.linear @ first.linear,
            shifts=np.einsum("eij,ej->ei", second.linear, first.shifts) + second.shifts,
            permutations=second.permutations[rows, first.permutations],
            map_linear=linear @ first.map_linear,
            map_shift=np.einsum("epij,epj->epi", linear, first.map_shift) + shift,
        )


@dataclass(frozen=True, eq=False)
class Normalizer:
    """The chirality-preserving affine normalizer N+ of a space group G, modulo G.

    Every element of N+ is ``(shift) o (linear element)`` times an operation of G, plus, in polar groups, a
    real combination of ``directions``. For groups 16 to 230 ``linear`` is complete. In the monoclinic and
    triclinic groups the linear parts are infinite (choice of cell); ``linear`` then holds those with entries
    from -2 to 2 (monoclinic) or -1 to 1 (triclinic), which join neighbouring cells and generate the rest.

    Attributes:
        linear: elements with distinct linear parts modulo the proper point group, the identity first.
        shifts: pure shifts modulo the translation lattice, zero first.
        directions: columns span the continuous (floating) origin shifts of a polar group.
        functionals: rows dual to ``directions``: invariant under G and integer on T, so that
            ``exp(2 pi i functionals x)`` is the same for all points of an orbit.
        mirror: for the 65 Sohncke groups one improper map onto the group of the mirror image,
            ``mirror_partner`` (the group itself or its enantiomorphic partner); otherwise None and 0.

    Source: International Tables A (2016), chapter 3.5 (Koch, Fischer & Müller); computed by
    ``scripts/build_normalizer_tables.py``.
    """

    space_group_number: int
    linear: EncodingMaps
    shifts: EncodingMaps
    directions: Float[np.ndarray, "3 polar"]
    functionals: Int[np.ndarray, "polar 3"]
    mirror: EncodingMaps | None
    mirror_partner: int

    @property
    def is_finite(self) -> bool:
        """Whether the linear parts are complete (all groups but the triclinic and monoclinic ones)."""
        return self.space_group_number > 15

    @cached_property
    def elements(self) -> EncodingMaps:
        """Every linear element followed by every pure shift, the identity first."""
        return self.linear.then(self.shifts)

    @cached_property
    def phase_shifts(self) -> EncodingMaps:
        """The pure shifts along ``directions`` by whole periods of ``functionals x``, zero first."""
        group, polar = group_arrays(), self.directions.shape[1]
        periods = np.array(list(product(range(_MAX_SCREW_ORDER), repeat=polar))) @ self.directions.T
        difference = (self.shifts.shifts[:, None] - periods) @ group["to_primitive"][
            self.space_group_number - 1
        ].T
        on_lattice = np.abs(difference - np.rint(difference)).max(axis=2) < 1e-9
        return self.shifts.take(np.flatnonzero(on_lattice.any(axis=1)))

    @cached_property
    def letter_permutations(self) -> Int[np.ndarray, "n positions"]:
        """The finite group of permutations of the Wyckoff positions that N+ induces, the identity first.

        Finite for every group, since it does not depend on the metric: closed under composition from the
        stored elements.
        """
        stored = np.unique(np.concatenate([self.linear.permutations, self.shifts.permutations]), axis=0)
        found = {tuple(range(stored.shape[1]))}
        frontier = list(found)
        while frontier:
            fresh = []
            for known in frontier:
                for row in stored[:, list(known)]:
                    image = tuple(row)
                    if image not in found:
                        found.add(image)
                        fresh.append(image)
            frontier = fresh
        rest = sorted(found - {tuple(range(stored.shape[1]))})
        return np.array([tuple(range(stored.shape[1])), *rest], dtype=np.int64)


@cache
def normalizer(number: int) -> Normalizer:
    """The chirality-preserving affine normalizer of the space group with this number, modulo the group."""
    tables, positions = normalizer_arrays(), group_arrays()["position_start"]
    n = number - 1
    num_positions = int(positions[number] - positions[n])
    elements = slice(tables["element_start"][n], tables["element_start"][number])
    entries = slice(tables["entry_start"][n], tables["entry_start"][number])
    everything = EncodingMaps(
        linear=tables["linear"][elements],
        shifts=tables["shifts"][elements],
        permutations=tables["permutations"][entries].reshape(-1, num_positions),
        map_linear=tables["map_linear"][entries].reshape(-1, num_positions, 3, 3),
        map_shift=tables["map_shift"][entries].reshape(-1, num_positions, 3),
    )
    num_linear, num_shifts = int(tables["num_linear"][n]), int(tables["num_shifts"][n])
    partner = int(tables["mirror_partner"][n])
    polar = slice(tables["direction_start"][n], tables["direction_start"][number])
    return Normalizer(
        space_group_number=number,
        linear=everything.take(slice(0, num_linear)),
        shifts=everything.take(slice(num_linear, num_linear + num_shifts)),
        directions=tables["directions"][polar].T,
        functionals=tables["functionals"][polar],
        mirror=everything.take(slice(num_linear + num_shifts, None)) if partner else None,
        mirror_partner=partner,
    )
