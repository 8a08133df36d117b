"""Pictures of crystals: cell, atoms, bonds and coordination polyhedra, with the asymmetric unit shown.

The atoms that are stored are drawn in full colour with a dark outline; the ones that symmetry makes of
them are paler. Element colours are Jmol's and covalent radii those of Cordero et al. (2008, Dalton
Trans., 2832), both as ASE ships them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers, covalent_radii
from ase.data.colors import jmol_colors
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from scipy.spatial import ConvexHull, QhullError, cKDTree

from nucleate.crystal import Crystal
from nucleate.data.canvas import Canvas
from nucleate.shapes import Bool, Float, Int

_INK = "#1c2733"
_QUIET = "#6b7885"
_CENTERED: dict[str, Any] = {"ha": "center", "va": "center"}
_RING = np.array([0.09, 0.13, 0.19])
_EDGE = np.array([0.52, 0.56, 0.61])
_NONMETALS = [1, 2, 5, 6, 7, 8, 9, 10, 14, 15, 16, 17, 18, 32, 33, 34, 35, 36, 51, 52, 53, 54, 85]
_LONGEST_BOND = 4.0


@dataclass(frozen=True)
class Portrait:
    """How one crystal is drawn.

    Attributes:
        crystal: what is drawn, in its conventional cell.
        formula: shown as title, digits as subscripts; the crystal's own formula if empty.
        name: shown beside the formula.
        polyhedra: symbols of the elements whose coordination polyhedra are drawn.
        repeats: cells drawn along a, b and c; the edges are those of the first.
        view: azimuth and elevation of the viewer in degrees.
    """

    crystal: Crystal
    formula: str = ""
    name: str = ""
    polyhedra: tuple[str, ...] = ()
    repeats: tuple[int, int, int] = (1, 1, 1)
    view: tuple[float, float] = (24.0, 14.0)


@dataclass(frozen=True, eq=False)
class _Scene:
    """Atoms of the cells around the drawn ones, in the viewer's frame, and which of them are shown."""

    positions: Float[np.ndarray, "atoms 3"]
    atomic_numbers: Int[np.ndarray, "atoms"]
    stored: Bool[np.ndarray, "atoms"]
    drawn: Int[np.ndarray, "shown"]
    centers: Int[np.ndarray, "centers"]
    bonds: Int[np.ndarray, "bonds 2"]
    corners: Float[np.ndarray, "8 3"]

    def moved(self, shift: Float[np.ndarray, "3"]) -> _Scene:
        """The scene shifted in the viewer's frame."""
        return replace(self, positions=self.positions + shift, corners=self.corners + shift)


def draw_crystals(
    portraits: Sequence[Portrait],
    path: Path | str,
    *,
    columns: int = 4,
    panel_pixels: int = 360,
    heading: str = "",
    subheading: str = "",
) -> Path:
    """Draw crystals in a grid and write the picture as PNG; gives back the path.

    Under each stand its formula, name, space group, and how many numbers describe it: lattice parameters
    and free coordinates that symmetry leaves, against six cell parameters and three coordinates for every
    atom of the primitive cell.
    """
    rows = -(-len(portraits) // columns)
    dpi, caption, head = 163, 0.235, 0.62 if heading else 0.0
    width = columns * panel_pixels / dpi
    height = rows * panel_pixels / dpi * (1 + caption) + head
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
    painted = FigureCanvasAgg(figure)
    if heading:
        figure.text(0.5, 1 - 0.19 / height, heading, size=13, color=_INK, weight="bold", **_CENTERED)
        figure.text(0.5, 1 - 0.43 / height, subheading, size=7.6, color=_QUIET, **_CENTERED)
    panel_width, panel_height = 1 / columns, (height - head) / rows / height
    for index, portrait in enumerate(portraits):
        row, column = divmod(index, columns)
        left, bottom = column * panel_width, 1 - head / height - (row + 1) * panel_height
        share = caption / (1 + caption)
        axes = figure.add_axes((left, bottom + share * panel_height, panel_width, (1 - share) * panel_height))
        axes.imshow(portrait_image(portrait, panel_pixels), interpolation="none", aspect="auto")
        axes.axis("off")
        _write_caption(figure, portrait, left + panel_width / 2, bottom, share * panel_height)
    painted.draw()
    colours = np.asarray(painted.buffer_rgba())[..., :3].astype(np.int64)
    # Steps of 6 in 255 are not seen, and halve the file.
    coarse = np.where(colours == 255, 255, np.minimum((colours + 3) // 6 * 6, 252)).astype(np.uint8)
    Image.fromarray(coarse).save(path, format="PNG", optimize=True)
    return Path(path)


def portrait_image(portrait: Portrait, pixels: int) -> Float[np.ndarray, "pixels pixels 3"]:
    """One crystal as an RGB image."""
    scene = _scene(portrait)
    radii = _radii(scene.atomic_numbers)
    outline = np.concatenate(
        [
            scene.positions[scene.drawn] + radii[scene.drawn, None],
            scene.positions[scene.drawn] - radii[scene.drawn, None],
            scene.corners,
        ]
    )
    low, high = outline.min(axis=0), outline.max(axis=0)
    scene = scene.moved(-(low + high) / 2)
    canvas = Canvas(pixels, 0.52 * max(float((high - low)[:2].max()), 0.8 * float(high[2] - low[2])))
    colours = jmol_colors[scene.atomic_numbers]
    shown = np.where(scene.stored[:, None], colours, 0.52 * colours + 0.48)
    thickness = 0.0085 * canvas.extent
    for a, b in _edges():
        canvas.rod(scene.corners[a], scene.corners[b], 0.55 * thickness, (_EDGE, _EDGE))
    for i, j in scene.bonds:
        canvas.rod(scene.positions[i], scene.positions[j], max(0.09, 1.3 * thickness), (shown[i], shown[j]))
    for i in scene.drawn:
        canvas.sphere(scene.positions[i], radii[i], shown[i], ring=_RING if scene.stored[i] else None)
    faces = [(corners, colours[center]) for center, corners in _polyhedron_faces(scene)]
    for corners, colour in sorted(faces, key=lambda face: face[0][:, 2].mean()):
        canvas.face(corners, colour, opacity=0.2)
    return canvas.image()


def count_numbers(crystal: Crystal) -> tuple[int, int]:
    """Numbers that describe the crystal as asymmetric unit, and as an explicit primitive cell."""
    return len(crystal.lattice_params) + crystal.num_free_coords, 6 + 3 * crystal.num_atoms_primitive


def _write_caption(figure: Figure, portrait: Portrait, x: float, bottom: float, height: float) -> None:
    crystal = portrait.crystal
    few, many = count_numbers(crystal)
    title = _formula_text(portrait.formula or crystal.formula)
    middle = f"{portrait.name}   {_group_text(crystal.group.symbol)}"
    orbits = f"{crystal.num_orbits} orbit{'s' if crystal.num_orbits > 1 else ''}"
    numbers = f"{few} number{'s' if few > 1 else ''} instead of {many}"
    figure.text(x, bottom + 0.80 * height, title, size=10.5, color=_INK, weight="bold", **_CENTERED)
    figure.text(x, bottom + 0.50 * height, middle, size=7.6, color=_INK, **_CENTERED)
    figure.text(x, bottom + 0.24 * height, f"{orbits}, {numbers}", size=7, color=_QUIET, **_CENTERED)


def _formula_text(formula: str) -> str:
    return re.sub(r"(\d+)", r"$_{\1}$", formula)


def _group_text(symbol: str) -> str:
    """Hermann-Mauguin symbol with overbars and subscripts."""
    text = re.sub(r"-(\d)", r"\\bar{\1}", symbol)
    text = re.sub(r"(\d)_(\d)", r"\1_{\2}", text)
    return f"${text}$"


def _scene(portrait: Portrait) -> _Scene:
    crystal = portrait.crystal
    cell = crystal.unit_cell("conventional")
    counts = crystal.multiplicities
    first_of_orbit = np.zeros(cell.num_atoms, dtype=bool)
    first_of_orbit[np.cumsum(counts) - counts] = True
    repeats = np.array(portrait.repeats)
    shifts = np.array(list(product(*(range(-1, n + 1) for n in repeats))))
    coords = (cell.frac_coords[None] + shifts[:, None]).reshape(-1, 3)
    numbers = np.tile(cell.atomic_numbers, len(shifts))
    at_home = np.abs(shifts).sum(axis=1) == 0
    stored = np.outer(at_home, first_of_orbit).ravel()
    turn = _view_rotation(*portrait.view) @ _upright(cell.lattice)
    middle = 0.5 * repeats @ cell.lattice
    positions = (coords @ cell.lattice - middle) @ turn.T
    inside = np.logical_and(coords > -1e-3, coords < repeats + 1e-3).all(axis=1)
    bonds = _bonds(positions, numbers)
    centers = inside & np.isin(numbers, [atomic_numbers[symbol] for symbol in portrait.polyhedra])
    if portrait.polyhedra:  # whole polyhedra: their outer ligands too, and no bonds but theirs
        bonds = bonds[centers[bonds].any(axis=1)]
        inside[bonds.ravel()] = True
    else:
        bonds = bonds[inside[bonds].all(axis=1)]
    corners = np.array(list(product((0, 1), repeat=3)), dtype=float)
    return _Scene(
        positions=positions,
        atomic_numbers=numbers,
        stored=stored,
        drawn=np.nonzero(inside)[0],
        centers=np.nonzero(centers)[0],
        bonds=bonds,
        corners=(corners @ cell.lattice - middle) @ turn.T,
    )


def _upright(lattice: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"]:
    """Rotation that brings c upright and a to the right."""
    up = lattice[2] / np.linalg.norm(lattice[2])
    right = lattice[0] - (lattice[0] @ up) * up
    right /= np.linalg.norm(right)
    return np.array([right, np.cross(up, right), up])


def _view_rotation(azimuth: float, elevation: float) -> Float[np.ndarray, "3 3"]:
    """Rotation into the viewer's frame: x right, y up, z towards the viewer."""
    a, e = np.radians([azimuth, elevation])
    around = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    to_viewer = np.array([[1, 0, 0], [0, np.sin(e), np.cos(e)], [0, -np.cos(e), np.sin(e)]])
    return to_viewer @ around


def _radii(numbers: Int[np.ndarray, "atoms"]) -> Float[np.ndarray, "atoms"]:
    """Drawn radius (Å): between equal and covalent, so that small atoms stay visible."""
    return 0.16 + 0.21 * covalent_radii[numbers]


def _edges() -> list[tuple[int, int]]:
    """Pairs of cell corners, in the order of ``product``, that an edge joins."""
    return [(a, b) for a, b in combinations(range(8), 2) if (a ^ b).bit_count() == 1]


def _bonds(
    positions: Float[np.ndarray, "atoms 3"], numbers: Int[np.ndarray, "atoms"]
) -> Int[np.ndarray, "bonds 2"]:
    """Pairs no further apart than 1.28 covalent radii and near the shortest distance of one of the two.

    In compounds with non-metals no metals are joined, nor like non-metals unless they are truly bonded.
    """
    pairs = cKDTree(positions).query_pairs(_LONGEST_BOND, output_type="ndarray")
    metal = ~np.isin(numbers, _NONMETALS)
    first, second = metal[pairs].T
    relative = np.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=1) / covalent_radii[
        numbers[pairs]
    ].sum(axis=1)
    if metal.any() and not metal.all():
        alike = (numbers[pairs[:, 0]] == numbers[pairs[:, 1]]) & (relative > 1.12)
        relative[(first & second) | alike] = np.inf
    shortest = np.full(len(positions), np.inf)
    for column in (0, 1):
        np.minimum.at(shortest, pairs[:, column], relative)
    return pairs[(relative < 1.28) & (relative < 1.18 * shortest[pairs].max(axis=1))]


def _polyhedron_faces(scene: _Scene) -> list[tuple[int, Float[np.ndarray, "3 3"]]]:
    """Triangles of the coordination polyhedra, each with the index of the atom at the centre."""
    faces = []
    for center in scene.centers:
        touching = scene.bonds[(scene.bonds == center).any(axis=1)]
        ligands = scene.positions[touching[touching != center]]
        if len(ligands) < 4:
            continue
        try:
            hull = ConvexHull(ligands)
        except QhullError:  # ligands in one plane enclose nothing
            continue
        faces += [(int(center), ligands[simplex]) for simplex in hull.simplices]
    return faces
