"""Text of one exported structure in each file format, with what its sites carry as far as the format can."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from nucleate.crystal.unit_cell import UnitCell
from nucleate.data.p1_cif import p1_cif
from nucleate.data.site_values import site_properties_to_text
from nucleate.data.store import StoredRecord

Writer: TypeAlias = Callable[[StoredRecord, UnitCell | None], str]


def as_cif(record: StoredRecord, cell: UnitCell | None) -> str:
    """The crystal as CIF with operations, Wyckoff letters and multiplicities; or a cell, in P1.

    In P1 every atom is a row, with its label, oxidation state and moment; deuterium and tritium are written D
    and T. Site properties that CIF has no item for are left out.
    """
    return record.crystal.to_cif(name=record.id) if cell is None else p1_cif(cell, name=record.id)


def as_poscar(record: StoredRecord, cell: UnitCell | None) -> str:
    """The cell as POSCAR, the id and the formula in its first line; D, T and selective dynamics are kept."""
    from nucleate.crystal.poscar import write_poscar  # noqa: PLC0415  formats load late

    comment = " ".join(f"{record.id} {record.crystal.formula}".split())
    return write_poscar(cell or record.crystal.unit_cell(), comment=comment)


def as_extxyz(record: StoredRecord, cell: UnitCell | None) -> str:
    """The cell as extended XYZ; id, group and properties stand in the comment line, site properties as columns.

    A site property that cannot be a column (mixed or empty values, text with spaces, more than three numbers
    in rank) stands in the comment line under ``site_properties``, as JSON.
    """
    from ase.io import write  # noqa: PLC0415  formats load late

    from nucleate.crystal.convert import unit_cell_to_ase  # noqa: PLC0415  ASE loads late

    whole = cell or record.crystal.unit_cell()
    columns, others = _divided(whole.site_properties)
    atoms = unit_cell_to_ase(replace(whole, site_properties=columns))
    atoms.info = {"id": record.id, "space_group_number": record.crystal.space_group_number}
    atoms.info.update({name.replace(" ", "_"): value for name, value in record.properties.items()})
    if others:
        atoms.info["site_properties"] = json.loads(site_properties_to_text(others) or "{}")
    text = io.StringIO()
    write(text, atoms, format="extxyz", write_results=atoms.calc is not None)
    return text.getvalue()


def _divided(properties: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Site properties that can be columns of extended XYZ, and those that cannot."""
    columns: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for name, values in properties.items():
        array = np.asarray(values)
        if array.dtype.kind == "O" and all(isinstance(value, str) for value in array.ravel()):
            array = array.astype(str)  # text as ASE has it
        fits = array.ndim <= 2 and array.dtype.kind in "biufU" and name.replace("_", "").isalnum()
        if array.dtype.kind == "U":
            fits = (
                fits
                and array.ndim == 1
                and all(text and text.isprintable() and " " not in text and '"' not in text for text in array)
            )
        (columns if fits else others)[name] = array
    return columns, others


FORMATS: dict[str, tuple[str, Writer]] = {
    "cif": (".cif", as_cif),
    "poscar": (".vasp", as_poscar),
    "extxyz": (".extxyz", as_extxyz),
}
