"""Foreign property values made plain: numbers, text, flags and nested lists; what is empty is left out."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from nucleate.data.record import PropertyValue

#: How data sets write "no value"; compared in lower case. JARVIS writes "na", pandas "nan", SQL dumps "null".
MISSING_TEXTS = frozenset({"", "na", "n/a", "nan", "none", "null"})
_INTEGER = re.compile(r"[+-]?\d{1,18}")
_LEADING_ZERO = re.compile(r"[+-]?0\d")
_ID_NAMES = (
    "material_id",
    "id",
    "jid",
    "mp_id",
    "mpid",
    "structure_id",
    "entry_id",
    "database_id",
    "task_id",
)

#: Units of columns of the published generation benchmarks (CDVAE's perov-5, carbon-24, MP-20; MPTS-52; WBM).
BENCHMARK_UNITS: Mapping[str, str] = {
    "formation_energy_per_atom": "eV/atom",
    "band_gap": "eV",
    "e_above_hull": "eV/atom",
    "energy_above_hull": "eV/atom",
    "energy_per_atom": "eV/atom",
    "heat_all": "eV/atom",
    "heat_ref": "eV/atom",
    "dir_gap": "eV",
    "ind_gap": "eV",
}


def find_id_column(columns: Iterable[str]) -> str | None:
    """The column that names the records: ``material_id``, else the first id-like one, else None.

    Id-like is one of the names databases use (``jid``, ``mp_id``, ``structure_id``, ...), in the table's
    order, else the first column that ends in ``_id``.
    """
    names = list(columns)
    if "material_id" in names:
        return "material_id"
    by_lower = [(name, name.strip().lower()) for name in names]
    known = [name for name, lower in by_lower if lower in _ID_NAMES]
    ending = [name for name, lower in by_lower if lower.endswith("_id")]
    return next(iter(known + ending), None)


def is_missing(value: Any) -> bool:
    """Whether a value says "there is none": None, NaN, an empty text or list, or a text such as ``na``."""
    if value is None:
        return True
    if isinstance(value, (float, np.floating)):
        return math.isnan(value)
    if isinstance(value, str):
        return value.strip().lower() in MISSING_TEXTS
    if isinstance(value, (list, tuple)):
        return all(is_missing(item) for item in value)
    return False


def plain_value(value: Any) -> PropertyValue:
    """The value as a Python scalar, a text or a nested list of one kind; None where there is none.

    Lists that mix numbers with text, and mappings inside lists, become JSON text: they are labels, not
    tensors.
    """
    if isinstance(value, np.ndarray):
        value = value.tolist()
    elif isinstance(value, np.generic):
        value = value.item()
    if is_missing(value):
        return None
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        kinds = _leaf_kinds(value)
        if kinds <= {"number", "none"} or kinds <= {"text", "none"} or kinds <= {"flag", "none"}:
            return _as_list(value)
        return json.dumps(value, default=str)
    return str(value)


def clean_properties(properties: Mapping[str, Any]) -> dict[str, PropertyValue]:
    """The properties that have a value; a mapping inside becomes ``name.key`` for each of its keys."""
    cleaned: dict[str, PropertyValue] = {}
    for name, value in properties.items():
        if isinstance(value, Mapping):
            cleaned.update(clean_properties({f"{name}.{key}": item for key, item in value.items()}))
        elif (plain := plain_value(value)) is not None:
            cleaned[name] = plain
    return cleaned


def column_kind(cells: Iterable[str]) -> str:
    """What a column of text holds, by a sample: ``integer``, ``number``, ``flag``, ``list`` or ``text``.

    A column without a single value is ``number``: NaN columns are the commonest empty ones. Digits with a
    leading zero (``007``) are names, not numbers.
    """
    kinds = {_cell_kind(cell.strip()) for cell in cells if not is_missing(cell)}
    if not kinds:
        return "number"
    if kinds == {"integer", "number"}:
        return "number"
    return kinds.pop() if len(kinds) == 1 else "text"


def parse_cell(cell: str, kind: str) -> PropertyValue:
    """The value of one table cell in a column of this kind; None where there is none.

    Raises:
        ValueError: the cell does not hold what its column holds.
    """
    text = cell.strip()
    if is_missing(text):
        return None
    if kind == "text":
        return cell
    found = _cell_kind(text)
    if kind in {"integer", "number"} and found in {"integer", "number"}:
        return int(text) if kind == "integer" and found == "integer" else float(text)
    if kind == "flag" and found == "flag":
        return text.lower() == "true"
    if kind == "list" and found == "list":
        return plain_value(json.loads(text))
    raise ValueError(f"holds {cell[:40]!r} where the column holds a {kind}")


def _cell_kind(text: str) -> str:
    if _LEADING_ZERO.match(text) and text.isdigit():
        return "text"
    if _INTEGER.fullmatch(text):
        return "integer"
    if text.lower() in {"true", "false"}:
        return "flag"
    if text.startswith("["):
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return "text"
        return "list"
    if "_" in text:  # float() reads "1_000", which no data set means as a number
        return "text"
    try:
        float(text)
    except ValueError:
        return "text"
    return "number"


def _leaf_kinds(value: Any) -> set[str]:
    if isinstance(value, (list, tuple)):
        return set().union(*(_leaf_kinds(item) for item in value))
    if value is None:
        return {"none"}
    if isinstance(value, (bool, np.bool_)):
        return {"flag"}
    if isinstance(value, (int, float, np.number)):
        return {"number"}
    return {"text"} if isinstance(value, str) else {"other"}


def _as_list(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_as_list(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value
