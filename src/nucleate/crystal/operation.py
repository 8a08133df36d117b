"""Symmetry operations as coordinate triplets, ``x-y,1/2+z,...``: read, written, checked as a group."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from nucleate.errors import ParseError
from nucleate.shapes import Float, Int

MAX_OPERATIONS = 1536
"""Most operations read from one list: 192 of a face-centred cubic cell, times a supercell of eight."""

TRANSLATION_TOLERANCE = 1e-4
"""Two translations nearer than this (fractional, modulo the lattice) are the same."""

_STEPS = 240  # a multiple of 24 and of 5: exact fractions fall on integers, and four keys fit into 64 bits
_ROTATION_BASE = 9 ** np.arange(9)
_MAX_LENGTH = 120
_TERM = re.compile(
    r"(?P<sign>[+-]?)(?:(?P<factor>\d*)\*?(?P<axis>[xyzXYZ])|(?P<number>\d+/\d+|\d*\.\d+|\d+\.?))", re.ASCII
)


@dataclass(frozen=True)
class Operation:
    """Symmetry operation ``x' = W x + t`` on fractional coordinates (columns).

    Attributes:
        rotation: W as rows, integers with determinant +1 or -1.
        translation: t as written, not wrapped into the cell.
        time_reversal: +1 or -1 where the operation acts on magnetic moments, otherwise +1.
    """

    rotation: tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]
    translation: tuple[float, float, float]
    time_reversal: int = 1


@dataclass(frozen=True, eq=False)
class OperationList:
    """Operations of a group modulo its lattice, stacked.

    Attributes:
        rotations: integer matrices W.
        translations: t, in [0, 1).
        time_reversals: +1 or -1 of each operation.
    """

    rotations: Int[np.ndarray, "operations 3 3"]
    translations: Float[np.ndarray, "operations 3"]
    time_reversals: Int[np.ndarray, "operations"]

    def __len__(self) -> int:
        return len(self.rotations)


@functools.lru_cache(maxsize=8192)
def parse_operation(text: str) -> Operation:
    """Operation written as a coordinate triplet: ``-y,x-y,z+1/3``, or ``x,y,z,-1`` with a time reversal.

    Terms are integers times x, y, z and numbers written as integer, decimal or fraction. Decimals of two or
    more digits that are a rounded multiple of 1/24 (0.3333, 0.667, and cut ones such as 0.666) become that
    fraction.

    Raises:
        ParseError: anything else; a rotation part without determinant +1 or -1. The message holds the text.
    """
    parts = text.replace(" ", "").replace("\t", "").split(",")
    if len(text) > _MAX_LENGTH or len(parts) not in (3, 4):
        raise ParseError(f"symmetry operation {text[:_MAX_LENGTH]!r} is not of the form x,y,z")
    time_reversal = 1
    if len(parts) == 4:
        if parts[3] not in ("1", "+1", "-1"):
            raise ParseError(f"symmetry operation {text!r}: time reversal is {parts[3]!r}, must be +1 or -1")
        time_reversal = int(parts[3])
    rows, translation = [], []
    for part in parts[:3]:
        row, shift = _parse_component(part, text)
        rows.append(row)
        translation.append(shift)
    (a, b, c), (d, e, f), (g, h, i) = rows
    determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    if abs(determinant) != 1:
        raise ParseError(f"symmetry operation {text!r} has determinant {determinant}, must be +1 or -1")
    return Operation(
        (rows[0], rows[1], rows[2]), (translation[0], translation[1], translation[2]), time_reversal
    )


def _parse_component(part: str, text: str) -> tuple[tuple[int, int, int], float]:
    row, shift, position = [0, 0, 0], 0.0, 0
    while position < len(part):
        match = _TERM.match(part, position)
        if match is None or (position > 0 and not match["sign"]):
            raise ParseError(f"symmetry operation {text!r} does not parse at {part[position:]!r}")
        sign = -1 if match["sign"] == "-" else 1
        if match["axis"]:
            factor = int(match["factor"] or 1)
            if factor > 4:
                raise ParseError(f"symmetry operation {text!r} has the factor {factor}")
            row["xyz".index(match["axis"].lower())] += sign * factor
        else:
            shift += sign * _parse_shift(match["number"], text)
        position = match.end()
    if abs(shift) > 100:
        raise ParseError(f"symmetry operation {text!r} moves by {abs(shift):g} cells")
    if not part:
        raise ParseError(f"symmetry operation {text!r} has an empty component")
    return (row[0], row[1], row[2]), shift


def _parse_shift(number: str, text: str) -> float:
    if "/" in number:
        numerator, denominator = map(int, number.split("/"))
        if denominator == 0:
            raise ParseError(f"symmetry operation {text!r} divides by zero")
        return numerator / denominator
    value = float(number)
    digits = len(number.partition(".")[2])
    if digits >= 2:
        exact = round(value * 24) / 24
        cut = int(exact * 10**digits + 1e-9) / 10**digits
        if round(exact, digits) == value or (digits >= 3 and abs(cut - value) < 10.0 ** -(digits + 2)):
            return exact
    return value


def format_operation(rotation: Int[np.ndarray, "3 3"], translation: Float[np.ndarray, "3"]) -> str:
    """Operation as a coordinate triplet such as ``-y,x-y,z+1/3``, the translation wrapped into [0, 1).

    Raises:
        ParseError: a translation that is no multiple of 1/24 within 1e-6.
    """
    parts = []
    for row, shift in zip(rotation.tolist(), translation.tolist()):
        terms = ""
        for factor, axis in zip(row, "xyz"):
            if factor:
                terms += f"{'-' if factor < 0 else '+'}{abs(factor) if abs(factor) > 1 else ''}{axis}"
        twenty_fourths = round(shift * 24)
        if abs(shift * 24 - twenty_fourths) > 24e-6:
            raise ParseError(f"translation {shift} of a symmetry operation is no multiple of 1/24")
        if twenty_fourths % 24:
            terms += f"+{Fraction(twenty_fourths % 24, 24)}"
        parts.append(terms.removeprefix("+"))
    return ",".join(parts)


def stack_operations(operations: Sequence[Operation]) -> OperationList:
    """Operations as arrays: translations wrapped, repeated operations dropped, checked to be a group.

    Raises:
        ParseError: no operation, more than ``MAX_OPERATIONS``, or a product of two operations is not in the
            list.
    """
    if not operations:
        raise ParseError("the list of symmetry operations is empty")
    if len(operations) > MAX_OPERATIONS:
        raise ParseError(f"{len(operations)} symmetry operations, at most {MAX_OPERATIONS} are read")
    unique: dict[tuple[object, ...], Operation] = {}
    for operation in operations:
        shift = tuple(_shift_key(np.array(operation.translation)).tolist())
        key = (operation.rotation, operation.time_reversal, shift)
        unique.setdefault(key, operation)
    kept = list(unique.values())
    translations = np.array([operation.translation for operation in kept], dtype=np.float64)
    translations -= np.floor(translations + TRANSLATION_TOLERANCE)
    stacked = OperationList(
        np.array([operation.rotation for operation in kept], dtype=np.int64),
        translations,
        np.array([operation.time_reversal for operation in kept], dtype=np.int64),
    )
    _check_group(stacked)
    return stacked


@functools.lru_cache(maxsize=512)
def operations_from_triplets(triplets: tuple[str, ...]) -> OperationList:
    """Group written as coordinate triplets; raises what `parse_operation` and `stack_operations` raise."""
    return stack_operations([parse_operation(text) for text in triplets])


def combine_with_centrings(
    operations: Sequence[Operation], centrings: Sequence[Operation]
) -> list[Operation]:
    """Every operation followed by every centring operation (magnetic CIFs list the two apart).

    Raises:
        ParseError: more than ``MAX_OPERATIONS`` products.
    """
    if len(operations) * len(centrings) > MAX_OPERATIONS:
        raise ParseError(
            f"{len(operations)} symmetry operations times {len(centrings)} centrings; "
            f"at most {MAX_OPERATIONS} are read"
        )
    combined = []
    for centring in centrings:
        w, t = np.array(centring.rotation), np.array(centring.translation)
        for operation in operations:
            rotation = (w @ np.array(operation.rotation)).tolist()
            translation = (w @ np.array(operation.translation) + t).tolist()
            combined.append(
                Operation(
                    (tuple(rotation[0]), tuple(rotation[1]), tuple(rotation[2])),
                    (translation[0], translation[1], translation[2]),
                    operation.time_reversal * centring.time_reversal,
                )
            )
    return combined


def _shift_key(translations: np.ndarray) -> np.ndarray:
    """Integers that agree for translations equal modulo the lattice, rounding apart."""
    return np.rint(translations * _STEPS).astype(np.int64) % _STEPS


def _check_group(operations: OperationList) -> None:
    """Nothing, if every product of two operations is in the list; otherwise it is incomplete or damaged."""
    rotations, translations = operations.rotations, operations.translations
    if len(operations) == 1:
        if (
            not np.array_equal(rotations[0], np.eye(3))
            or np.abs(translations[0]).max() > TRANSLATION_TOLERANCE
        ):
            raise ParseError("the only symmetry operation is not the identity x,y,z")
        return
    codes = _rotation_codes(rotations, operations.time_reversals)
    keys = _keys(codes, translations)
    for i in range(len(operations)):
        product_translations = translations @ rotations[i].T + translations[i]
        product_codes = _rotation_codes(
            rotations[i] @ rotations, operations.time_reversals[i] * operations.time_reversals
        )
        # Exact fractions agree as integers; only a rounded translation needs the comparison with a tolerance.
        for j in np.flatnonzero(~np.isin(_keys(product_codes, product_translations), keys)):
            delta = translations[codes == product_codes[j]] - product_translations[j]
            delta -= np.rint(delta)
            if not (np.abs(delta) < 10 * TRANSLATION_TOLERANCE).all(axis=1).any():
                raise ParseError(
                    f"the {len(operations)} symmetry operations are not a group: "
                    f"operation {i + 1} after operation {j + 1} is missing from the list"
                )


def _keys(codes: np.ndarray, translations: np.ndarray) -> np.ndarray:
    shifts = _shift_key(translations)
    return ((codes * _STEPS + shifts[:, 0]) * _STEPS + shifts[:, 1]) * _STEPS + shifts[:, 2]


def _rotation_codes(rotations: np.ndarray, time_reversals: np.ndarray) -> np.ndarray:
    """One integer per rotation and time reversal; entries beyond ±4 (in no sane cell) get -1."""
    flat = rotations.reshape(-1, 9)
    codes = (np.clip(flat, -4, 4) + 4) @ _ROTATION_BASE
    return np.where(np.abs(flat).max(axis=1) > 4, -1, codes * 2 + (time_reversals > 0))
