"""Born's conditions of mechanical stability, spelled out for each class of crystals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nucleate.shapes import Float

_LAUE = {
    "cubic": ("23", "m-3", "432", "-43m", "m-3m"),
    "hexagonal": ("6", "-6", "6/m", "622", "6mm", "-62m", "-6m2", "6/mmm"),
    "rhombohedral I": ("32", "3m", "-3m", "321", "312", "3m1", "31m", "-3m1", "-31m"),
    "rhombohedral II": ("3", "-3"),
    "tetragonal I": ("422", "4mm", "-42m", "-4m2", "4/mmm"),
    "tetragonal II": ("4", "-4", "4/m"),
    "orthorhombic": ("222", "mm2", "mmm"),
}


@dataclass(frozen=True)
class StabilityCondition:
    """One condition.

    Attributes:
        text: the condition and the value it has.
        value: must be positive; GPa.
    """

    text: str
    value: float


def elastic_class(point_group: str) -> str:
    """The class of crystals whose elastic tensors have one form, of a point group's Hermann-Mauguin symbol.

    ``cubic``, ``hexagonal``, ``rhombohedral I`` (32, 3m, -3m) and ``II`` (3, -3), ``tetragonal I`` and ``II``,
    ``orthorhombic``, or ``general`` for monoclinic and triclinic crystals.
    """
    return next((name for name, symbols in _LAUE.items() if point_group in symbols), "general")


def born_conditions(tensor: Float[np.ndarray, "6 6"], point_group: str) -> tuple[StabilityCondition, ...]:
    """Conditions that together are necessary and sufficient for the tensor to be positive definite.

    Closed forms of Mouhat and Coudert, Physical Review B 90, 224104 (2014), eqs. 7 to 17, written so that each is a
    modulus in GPa that must be positive (for example ``C33 - 2 C13^2 / (C11 + C12)``); for monoclinic and triclinic
    crystals the six pivots of the elimination (ratios of consecutive leading minors).

    Args:
        tensor: Voigt matrix in GPa in the standard frame, with the symmetry of the class.
        point_group: Hermann-Mauguin symbol.
    """
    c = np.vstack([np.zeros((1, 7)), np.hstack([np.zeros((6, 1)), tensor])])  # c[1, 1] is C11
    kind = elastic_class(point_group)
    if kind == "cubic":
        rows = [
            ("C11 - C12", c[1, 1] - c[1, 2]),
            ("C11 + 2 C12", c[1, 1] + 2 * c[1, 2]),
            ("C44", c[4, 4]),
        ]
    elif kind in ("hexagonal", "tetragonal I", "tetragonal II", "rhombohedral I", "rhombohedral II"):
        rows = _uniaxial(c, kind)
    elif kind == "orthorhombic":
        rows = [(f"C{i}{i}", c[i, i]) for i in (4, 5, 6)] + _pivots(tensor[:3, :3])
    else:
        rows = _pivots(tensor)
    return tuple(StabilityCondition(f"{name} = {value:.2f} GPa", float(value)) for name, value in rows)


def _uniaxial(c: Float[np.ndarray, "7 7"], kind: str) -> list[tuple[str, float]]:
    """Conditions of the classes with one axis of order 3, 4 or 6."""
    plane = c[1, 1] + c[1, 2]
    rows = [("C11 + C12", plane)]
    # without a positive C11 + C12 the next one has no meaning, and the first has said it
    if plane > 0:
        rows.append(("C33 - 2 C13^2 / (C11 + C12)", c[3, 3] - 2 * c[1, 3] ** 2 / plane))
    shear = c[1, 1] - c[1, 2]
    if kind == "hexagonal":
        return [*rows, ("C44", c[4, 4]), ("C11 - C12", shear)]
    if kind == "tetragonal I":
        return [*rows, ("C44", c[4, 4]), ("C66", c[6, 6]), ("C11 - C12", shear)]
    rows.append(("C11 - C12", shear))
    if kind == "tetragonal II":
        rows.append(("C44", c[4, 4]))
        if shear > 0:
            rows.append(("C66 - 2 C16^2 / (C11 - C12)", c[6, 6] - 2 * c[1, 6] ** 2 / shear))
        return rows
    if shear > 0:
        # C15 is zero in class I
        coupling = c[1, 4] ** 2 + c[1, 5] ** 2
        rows.append(("C44 - 2 (C14^2 + C15^2) / (C11 - C12)", c[4, 4] - 2 * coupling / shear))
    return rows


def _pivots(matrix: Float[np.ndarray, "n n"]) -> list[tuple[str, float]]:
    """Pivots of the elimination without exchange, up to the first that is not positive."""
    rest = np.array(matrix, dtype=np.float64)
    rows = []
    for i in range(len(rest)):
        pivot = float(rest[i, i])
        rows.append((f"pivot {i + 1} of the elimination", pivot))
        if pivot <= 0:
            break
        rest -= np.outer(rest[:, i], rest[i]) / pivot
    return rows
