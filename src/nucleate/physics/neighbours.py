"""Every periodic neighbour inside a radius, exactly, for any cell however skewed: numpy, linked cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nucleate.errors import InvalidStructureError
from nucleate.shapes import Float, Int

MAXIMUM_SEARCH = 200_000_000
"""Most (atom, box) pairs a search may look at; only collapsed cells reach it."""


@dataclass(frozen=True, eq=False)
class NeighbourList:
    """Directed pairs: image ``frac_coords[second] + shift`` lies ``distance`` from ``frac_coords[first]``.

    Attributes:
        first: index of the central atom.
        second: index of the neighbour; may equal ``first`` when ``shift`` is not zero.
        shifts: whole lattice vectors added to the neighbour's given (unwrapped) fractional coordinates.
        distances: in Å, at most the radius.
    """

    first: Int[np.ndarray, "pairs"]
    second: Int[np.ndarray, "pairs"]
    shifts: Int[np.ndarray, "pairs 3"]
    distances: Float[np.ndarray, "pairs"]

    def __len__(self) -> int:
        return len(self.first)


def neighbours_within(
    lattice: Float[np.ndarray, "3 3"], frac_coords: Float[np.ndarray, "atoms 3"], *, radius: float
) -> NeighbourList:
    """All directed pairs of atoms and images at most ``radius`` Å apart, an atom's own images included.

    The cell is cut into boxes along its own axes. With plane spacing ``h_k = 1 / |b_k|`` (b reciprocal) and
    ``n_k`` boxes, a point within ``radius`` differs by at most ``radius / h_k`` in fractional coordinate k,
    so looking ``ceil(radius n_k / h_k)`` boxes to either side misses nothing. Time and memory grow with the
    number of atoms times the atoms in a box neighbourhood.

    Raises:
        InvalidStructureError: no volume, or planes so close that the search would need more than 2e8 boxes.
    """
    lattice = np.asarray(lattice, dtype=np.float64)
    frac = np.asarray(frac_coords, dtype=np.float64)
    strange = int((~np.isfinite(lattice)).sum() + (~np.isfinite(frac)).sum())
    if strange:
        raise InvalidStructureError(f"{strange} numbers of the cell and coordinates are not finite.")
    volume = abs(float(np.linalg.det(lattice)))
    if volume < 1e-12:
        raise InvalidStructureError(f"Neighbours need a cell with volume, got {volume:.3g} Å³.")
    num_atoms = len(frac)
    spacing = 1.0 / np.linalg.norm(np.linalg.inv(lattice), axis=0)
    # One box holds a few atoms at most times the density, and never more boxes than helps.
    boxes = np.clip(np.floor(spacing / radius), 1, 1024).astype(np.int64)
    reach = np.ceil(radius * boxes / spacing).astype(np.int64)
    num_offsets = float(np.prod(2.0 * reach + 1.0))
    if num_offsets * max(num_atoms, 1) > MAXIMUM_SEARCH:
        raise InvalidStructureError(
            f"Lattice planes are {spacing.min():.3g} Å apart: {radius:g} Å is {num_offsets:.2g} boxes."
        )
    wrap = np.floor(frac).astype(np.int64)
    inside = frac - wrap
    # A coordinate of -1e-17 wraps to 1.0, which is the upper edge of the last box.
    box = np.minimum((inside * boxes).astype(np.int64), boxes - 1)
    box_id = (box[:, 0] * boxes[1] + box[:, 1]) * boxes[2] + box[:, 2]
    order = np.argsort(box_id, kind="stable")
    sorted_ids = box_id[order]

    axes = [np.arange(-r, r + 1) for r in reach]
    offsets = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    pieces: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
    chunk = max(1, 2_000_000 // max(num_atoms, 1))
    for start in range(0, len(offsets), chunk):
        target = box[:, None, :] + offsets[None, start : start + chunk, :]
        cell = target // boxes
        target -= cell * boxes
        target_id = ((target[..., 0] * boxes[1] + target[..., 1]) * boxes[2] + target[..., 2]).ravel()
        low = np.searchsorted(sorted_ids, target_id, side="left")
        count = np.searchsorted(sorted_ids, target_id, side="right") - low
        source = np.repeat(np.arange(len(target_id)), count)
        within = np.arange(len(source)) - np.repeat(np.cumsum(count) - count, count)
        second = order[low[source] + within]
        first = source // target.shape[1]
        cell = cell.reshape(-1, 3)[source]
        delta = (inside[second] - inside[first] + cell) @ lattice
        distances = np.sqrt(np.einsum("ij,ij->i", delta, delta))
        keep = (distances <= radius) & ((first != second) | (cell != 0).any(axis=1))
        first, second = first[keep], second[keep]
        pieces.append((first, second, cell[keep] - wrap[second] + wrap[first], distances[keep]))
    if not pieces:
        empty = np.zeros(0, dtype=np.int64)
        return NeighbourList(empty, empty, np.zeros((0, 3), dtype=np.int64), np.zeros(0))
    columns = [np.concatenate(column) for column in zip(*pieces)]
    return NeighbourList(columns[0], columns[1], columns[2], columns[3])
