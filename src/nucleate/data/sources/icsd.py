"""ICSD exports: folders or archives of CIF files with the entry's number in ``_database_code_ICSD``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nucleate.crystal.cif_block import CifTags
from nucleate.data.sources.cif_metadata import citation, first_number
from nucleate.data.sources.dataset import Dataset
from nucleate.data.sources.file_collection import FileCollection
from nucleate.data.sources.structure_files import StructureReader
from nucleate.errors import SourceError

DATASET = Dataset(
    "icsd",
    {"temperature": "K", "pressure": "kPa"},
    licence="ICSD, FIZ Karlsruhe: for licence holders, not to be passed on",
    url="https://icsd.fiz-karlsruhe.de",
    reference="https://doi.org/10.1107/S160057671900997X",
)


def open_icsd(spec: str, *, units: Mapping[str, str] | None = None, max_atoms: int = 1000) -> FileCollection:
    """The source for CIF files exported from ICSD; entries are named ``icsd-NUMBER``.

    Args:
        spec: folder, archive, file or glob pattern.
        units: units of further properties.
        max_atoms: largest number of atoms per cell that is read.

    Raises:
        SourceError: nothing is there.
    """
    path = os.path.expanduser(spec.strip())
    if not path or not (os.path.exists(path) or any(mark in path for mark in "*?[")):
        raise SourceError(f"icsd: takes the folder of an ICSD export (CIF files); there is no {spec!r}")
    dataset = replace(DATASET, units={**DATASET.units, **(units or {})})
    return FileCollection(
        path, dataset, max_atoms=max_atoms, reader=StructureReader(dataset, read_icsd_tags, max_atoms)
    )


def read_icsd_tags(tags: CifTags) -> tuple[str | None, Mapping[str, Any], Mapping[str, Any]]:
    """Id, properties and provenance of an ICSD entry: names, type, temperature, pressure, citation."""
    number = tags.text("_database_code_ICSD", "_database_code_icsd")
    properties = {
        "mineral": tags.text("_chemical_name_mineral"),
        "name": tags.text("_chemical_name_systematic", "_chemical_name_common"),
        "structure_type": tags.text("_chemical_name_structure_type"),
        "temperature": first_number(tags, "_cell_measurement_temperature", "_diffrn_ambient_temperature"),
        "pressure": first_number(tags, "_cell_measurement_pressure", "_diffrn_ambient_pressure"),
        "r_factor": first_number(tags, "_refine_ls_R_factor_all", "_refine_ls_R_factor_gt"),
        "year": first_number(tags, "_citation_year", "_journal_year"),
    }
    if number is None or not number.isdigit():
        return None, properties, {"reference": citation(tags)}
    return f"icsd-{number}", properties, {"database_id": number, "reference": citation(tags)}
