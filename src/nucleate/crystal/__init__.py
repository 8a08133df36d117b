"""What a crystal is: space groups, Wyckoff positions, lattices, the asymmetric unit and all its encodings."""

from __future__ import annotations

from typing import Any

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.encoded import EncodedStructure
from nucleate.crystal.lattice import LatticeSubspace
from nucleate.crystal.normalizer import Normalizer
from nucleate.crystal.space_group import SpaceGroup, space_group
from nucleate.crystal.unit_cell import UnitCell
from nucleate.crystal.wyckoff import WyckoffPosition
from nucleate.late import late_name

_LATE = {"CrystalBatch": "batch", "encode": "encoding", "pseudo_symmetry": "encoding"}

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
    """What needs moyopy (``encode``, ``pseudo_symmetry``) or torch (``CrystalBatch``), imported on first use."""
    return late_name(__name__, _LATE, name)
