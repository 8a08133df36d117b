"""Where each element stands in the drawn periodic table: 18 columns, the f block below."""

from __future__ import annotations

_NOBLE_GASES = (2, 10, 18, 36, 54, 86, 118)

# Rows of the drawing: periods 1 to 7, a gap, lanthanides, actinides.
NUM_ROWS = 10
NUM_COLUMNS = 18
_LANTHANIDE_ROW, _ACTINIDE_ROW = 8, 9


def place(atomic_number: int) -> tuple[int, int]:
    """Row and column, from 0, of an element in the drawing.

    The f block stands apart with 15 elements in each row (La to Lu, Ac to Lr).
    """
    if 57 <= atomic_number <= 71:
        return _LANTHANIDE_ROW, atomic_number - 57 + 2
    if 89 <= atomic_number <= 103:
        return _ACTINIDE_ROW, atomic_number - 89 + 2
    period = next(row for row, last in enumerate(_NOBLE_GASES) if atomic_number <= last)
    before_end = _NOBLE_GASES[period] - atomic_number
    first = (_NOBLE_GASES[period - 1] if period else 0) + 1
    # The s block counts from the left, everything behind it from the right.
    return (
        (period, atomic_number - first)
        if atomic_number - first < _s_block(period)
        else (period, 17 - before_end)
    )


def _s_block(period: int) -> int:
    return 1 if period == 0 else 2
