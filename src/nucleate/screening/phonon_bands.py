"""Phonon band structure along the standard path, density of states, and their drawing."""

from __future__ import annotations

import io
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from nucleate.screening.force_constants import frequencies
from nucleate.shapes import Float

if TYPE_CHECKING:
    from phonopy import Phonopy

SMEARING = 0.02
"""Width of the Gaussians of a density of states, share of the highest frequency."""

_CURVES, _IMAGINARY = "#1f4e79", "#b3261e"


@dataclass(frozen=True, eq=False)
class BandStructure:
    """Frequencies along a path of q points.

    Attributes:
        qpoints: (points, 3) fractions of the primitive reciprocal cell.
        distances: (points,) length along the path, 1/Å with the factor 2 pi; constant over a jump.
        frequencies: (points, modes) THz, imaginary ones negative.
        ticks: places along the path of the named points.
        labels: their names; ``X|U`` where the path jumps.
    """

    qpoints: Float[np.ndarray, "points 3"]
    distances: Float[np.ndarray, "points"]
    frequencies: Float[np.ndarray, "points modes"]
    ticks: tuple[float, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class DensityOfStates:
    """Density of states of the vibrations.

    Attributes:
        frequencies: THz.
        total: states per THz and atom; the integral is 3.
    """

    frequencies: Float[np.ndarray, "f"]
    total: Float[np.ndarray, "f"]


def band_path(lattice: Float[np.ndarray, "3 3"]) -> list[list[tuple[str, Float[np.ndarray, "3"]]]]:
    """Connected pieces of the standard path of a lattice, each a list of (name, q point).

    The path is that of Setyawan and Curtarolo (Computational Materials Science 49, 299 (2010)) for the Bravais type of
    the lattice, as ASE finds it for any primitive cell; q points are fractions of this cell's reciprocal basis.

    Args:
        lattice: primitive lattice, rows in Å.
    """
    from ase.cell import Cell  # noqa: PLC0415  heavy
    from ase.dft.kpoints import parse_path_string  # noqa: PLC0415  heavy

    path = Cell(lattice).bandpath(npoints=0)
    return [
        [(name, np.array(path.special_points[name], dtype=np.float64)) for name in piece]
        for piece in parse_path_string(path.path)
    ]


def band_structure(phonopy: Phonopy, *, path_points: int = 41) -> BandStructure:
    """Band structure of phonopy's force constants along the standard path.

    Args:
        phonopy: with force constants.
        path_points: q points on the longest segment; the others have the same spacing.
    """
    lattice = np.array(phonopy.primitive.cell)
    reciprocal = 2 * np.pi * np.linalg.inv(lattice).T
    pieces = band_path(lattice)
    segments = [(a, b) for piece in pieces for a, b in pairwise(piece)]
    lengths = [float(np.linalg.norm((b[1] - a[1]) @ reciprocal)) for a, b in segments]
    spacing = max(lengths) / max(path_points - 1, 1)
    points: list[np.ndarray] = []
    distances: list[np.ndarray] = []
    ticks, labels = [0.0], [segments[0][0][0]]
    start = 0.0
    for i, ((name, first), (next_name, last)) in enumerate(segments):
        if i and name != segments[i - 1][1][0]:
            labels[-1] = f"{labels[-1]}|{name}"
        count = max(2, round(lengths[i] / spacing) + 1)
        share = np.linspace(0, 1, count)
        points.append(first + share[:, None] * (last - first))
        distances.append(start + share * lengths[i])
        start += lengths[i]
        ticks.append(start)
        labels.append(next_name)
    qpoints = np.concatenate(points)
    return BandStructure(
        qpoints, np.concatenate(distances), frequencies(phonopy, qpoints), tuple(ticks), tuple(labels)
    )


def density_of_states(phonopy: Phonopy, *, mesh_length: float, points: int = 401) -> DensityOfStates:
    """Density of states on a mesh, Gaussians of ``SMEARING`` times the highest frequency, per atom.

    Args:
        phonopy: with force constants.
        mesh_length: see ``PhononSettings``, Å.
        points: frequencies from below the lowest to above the highest.
    """
    mesh = phonopy.run_mesh(mesh_length, is_gamma_center=True)
    values = np.array(mesh.frequencies)
    width = SMEARING * max(float(np.abs(values).max()), 1e-3)
    grid = np.linspace(values.min() - 4 * width, values.max() + 4 * width, points)
    weights = np.array(mesh.weights, dtype=np.float64)
    weights /= weights.sum() * len(phonopy.primitive)
    total = np.zeros(points)
    for weight, row in zip(weights, values):
        total += weight * np.exp(-0.5 * ((grid[:, None] - row) / width) ** 2).sum(axis=1)
    return DensityOfStates(grid, total / (width * np.sqrt(2 * np.pi)))


def draw_phonons(bands: BandStructure, states: DensityOfStates, *, title: str) -> bytes:
    """PNG with the band structure on the left and the density of states on the right, one frequency axis.

    Imaginary frequencies are drawn below zero, as usual, in red.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  heavy
    from matplotlib.figure import Figure  # noqa: PLC0415  heavy

    figure = Figure(figsize=(8.0, 4.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True, gridspec_kw={"width_ratios": [3, 1]})
    for piece in _pieces(bands):
        values = bands.frequencies[piece]
        left.plot(bands.distances[piece], values, color=_CURVES, linewidth=1.1)
        # drawn over the curve, so that nothing is missing where it crosses zero
        left.plot(
            bands.distances[piece], np.where(values < 0, values, np.nan), color=_IMAGINARY, linewidth=1.6
        )
    for tick in bands.ticks:
        left.axvline(tick, color="0.8", linewidth=0.6, zorder=0)
    left.axhline(0, color="0.5", linewidth=0.6)
    left.set_xticks(bands.ticks, [label.replace("G", "Γ") for label in bands.labels])
    left.set_xlim(bands.ticks[0], bands.ticks[-1])
    left.set_ylabel("frequency (THz; imaginary below zero)")
    left.set_title(title)
    right.fill_betweenx(states.frequencies, states.total, color=_CURVES, alpha=0.25, linewidth=0)
    right.plot(states.total, states.frequencies, color=_CURVES, linewidth=1.1)
    right.axhline(0, color="0.5", linewidth=0.6)
    right.set_xlabel("states / (THz atom)")
    right.set_xlim(left=0)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _pieces(bands: BandStructure) -> list[slice]:
    """Stretches of the path between its jumps, where two points share a place but not the q point."""
    same_place = np.diff(bands.distances) < 1e-9
    jumps = np.flatnonzero(same_place & (np.abs(np.diff(bands.qpoints, axis=0)).max(axis=1) > 1e-9)) + 1
    edges = [0, *jumps.tolist(), len(bands.distances)]
    return [slice(first, last) for first, last in pairwise(edges)]
