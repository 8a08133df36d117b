"""The bundled set of well-known crystals, of all seven crystal systems, each with the source of its
numbers.

The set is what the demo and the tests run on. ``bundled_crystals.json`` holds asymmetric units, in
the setting their source uses (``P b n m``, ``C -1`` and ``A 1 2/a 1`` among them);
``scripts/build_bundled.py`` writes and checks it. The cells are expanded with gemmi's operations,
not with nucleate's own tables, so that they are a test of those.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import gemmi
import numpy as np

from nucleate.crystal.unit_cell import UnitCell
from nucleate.shapes import Float

# Fractional distance below which two images of a site are the same atom; the stored digits are good to 1e-9.
_SAME_ATOM = 1e-5


@dataclass(frozen=True, eq=False)
class BundledCrystal:
    """One well-known crystal.

    Attributes:
        id: short name made of formula and name, fit for a file name, unique in the set.
        name: mineral, phase or compound.
        formula: chemical formula as a chemist writes it.
        strukturbericht: Strukturbericht designation, empty where there is none.
        source: paper (and AFLOW label, AMCSD or COD number) the numbers come from.
        space_group_number: number of the space group, 1 to 230.
        space_group_setting: extended Hermann-Mauguin symbol of the setting the numbers are given in.
        crystal_system: one of the seven crystal systems.
        sites: asymmetric unit as element symbol, Wyckoff letter (in the standard setting) and coordinates.
        unit_cell: conventional cell in that setting.
    """

    id: str
    name: str
    formula: str
    strukturbericht: str
    source: str
    space_group_number: int
    space_group_setting: str
    crystal_system: str
    sites: tuple[tuple[str, str, tuple[float, float, float]], ...]
    unit_cell: UnitCell


@cache
def load_bundled() -> tuple[BundledCrystal, ...]:
    """All bundled crystals, in the order of their space group numbers."""
    text = files("nucleate.data").joinpath("bundled_crystals.json").read_text(encoding="utf-8")
    return tuple(_bundled_crystal(entry) for entry in json.loads(text))


def bundled_crystal(crystal_id: str) -> BundledCrystal:
    """The bundled crystal of that id.

    Raises:
        KeyError: no bundled crystal has this id.
    """
    for crystal in load_bundled():
        if crystal.id == crystal_id:
            return crystal
    raise KeyError(crystal_id)


def _bundled_crystal(entry: dict[str, Any]) -> BundledCrystal:
    group = gemmi.SpaceGroup(entry["space_group"])
    numbers: list[int] = []
    frac_coords: list[Float[np.ndarray, "images 3"]] = []
    for symbol, _, point in entry["sites"]:
        images = _orbit(group, np.array(point, dtype=np.float64))
        frac_coords.append(images)
        numbers += [gemmi.Element(symbol).atomic_number] * len(images)
    return BundledCrystal(
        id=entry["id"],
        name=entry["name"],
        formula=entry["formula"],
        strukturbericht=entry["strukturbericht"],
        source=entry["source"],
        space_group_number=entry["number"],
        space_group_setting=entry["space_group"],
        crystal_system=group.crystal_system_str(),
        sites=tuple((symbol, letter, tuple(point)) for symbol, letter, point in entry["sites"]),
        unit_cell=UnitCell(
            lattice=_lattice(entry["cell"]),
            frac_coords=np.concatenate(frac_coords),
            atomic_numbers=np.array(numbers, dtype=np.int64),
        ),
    )


def _lattice(cell: list[float]) -> Float[np.ndarray, "3 3"]:
    """Rows a, b, c of a cell given by lengths (Å) and angles (degrees); a along x, b in the xy plane."""
    return np.array(gemmi.UnitCell(*cell).orth.mat.tolist()).T


def _orbit(group: gemmi.SpaceGroup, point: Float[np.ndarray, "3"]) -> Float[np.ndarray, "images 3"]:
    """All atoms of the cell that the group makes of one, each once, with coordinates from 0 to 1."""
    images = np.array([op.apply_to_xyz(point.tolist()) for op in group.operations()])
    images -= np.floor(images + _SAME_ATOM)
    kept: list[int] = []
    for index, image in enumerate(images):
        difference = images[kept] - image
        if not np.any(np.all(np.abs(difference - np.round(difference)) < _SAME_ATOM, axis=1)):
            kept.append(index)
    return images[kept]
