"""What a crystal is: space groups, Wyckoff positions, lattices, the asymmetric unit and all its encodings."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.encoded import EncodedStructure
from nucleate.crystal.lattice import LatticeSubspace
from nucleate.crystal.normalizer import Normalizer
from nucleate.crystal.space_group import SpaceGroup, space_group
from nucleate.crystal.unit_cell import UnitCell
from nucleate.crystal.wyckoff import WyckoffPosition

__all__ = [
    "Crystal",
    "CrystalBatch",
    "EncodedStructure",
    "LatticeSubspace",
    "Normalizer",
    "SpaceGroup",
    "UnitCell",
    "WyckoffPosition",
    "encode",
    "pseudo_symmetry",
    "space_group",
]


def __getattr__(name: str) -> Any:
    """Loads what needs moyopy (``encode``, ``pseudo_symmetry``) or torch (``CrystalBatch``) on first use."""
    home = {"encode": "encoding", "pseudo_symmetry": "encoding", "CrystalBatch": "batch"}.get(name)
    if home is not None:
        value = getattr(import_module(f"nucleate.crystal.{home}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
