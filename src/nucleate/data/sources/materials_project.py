"""The Materials Project through its own client, mp-api (an optional extra), with an API key."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nucleate.crystal.convert import unit_cell_from_pymatgen
from nucleate.data.categories import category_of
from nucleate.data.record import Record, Rejection, Task
from nucleate.data.sources.dataset import Dataset, DatasetSource, reason_of
from nucleate.errors import ParseError, SourceError

ENTRIES_PER_TASK = 500
KEY_VARIABLE = "MP_API_KEY"
#: Scalars of the summary document that the client can give beside the structure.
PROPERTIES = (
    "formula_pretty",
    "formation_energy_per_atom",
    "energy_above_hull",
    "is_stable",
    "band_gap",
    "is_gap_direct",
    "is_metal",
    "ordering",
    "total_magnetization",
    "bulk_modulus",
    "shear_modulus",
    "e_total",
    "e_ionic",
    "e_electronic",
    "e_ij_max",
    "theoretical",
    "deprecated",
)
UNITS: Mapping[str, str] = {
    "formation_energy_per_atom": "eV/atom",
    "energy_above_hull": "eV/atom",
    "energy_per_atom": "eV/atom",
    "uncorrected_energy_per_atom": "eV/atom",
    "band_gap": "eV",
    "cbm": "eV",
    "vbm": "eV",
    "efermi": "eV",
    "total_magnetization": "μB",
    "bulk_modulus.voigt": "GPa",
    "bulk_modulus.reuss": "GPa",
    "bulk_modulus.vrh": "GPa",
    "shear_modulus.voigt": "GPa",
    "shear_modulus.reuss": "GPa",
    "shear_modulus.vrh": "GPa",
    "e_total": "1",
    "e_ionic": "1",
    "e_electronic": "1",
    "e_ij_max": "C/m²",
    "density": "g/cm³",
    "volume": "Å³",
}
DATASET = Dataset(
    "materials_project",
    UNITS,
    licence="CC-BY-4.0",
    url="https://materialsproject.org",
    reference="https://doi.org/10.1063/1.4812323",
)
#: How a document's licence field reads in words; GNoME's contributions are not for commercial use.
_LICENCES = {"BY-C": "CC-BY-4.0", "BY-NC": "CC-BY-NC-4.0"}
_MATERIAL_ID = re.compile(r"(mp|mvc|gnome)-[0-9a-z]+", re.IGNORECASE)
_CHEMICAL_SYSTEM = re.compile(r"[A-Z][a-z]?(-[A-Z*][a-z]?)*")


def open_materials_project(
    spec: str,
    *,
    api_key: str | None = None,
    properties: Sequence[str] = PROPERTIES,
    units: Mapping[str, str] | None = None,
    search: Mapping[str, Any] | None = None,
    endpoint: str | None = None,
    max_atoms: int = 1000,
) -> MaterialsProject:
    """The source for entries of the Materials Project.

    Args:
        spec: "" for everything that is not deprecated, material ids (``mp-149,mp-13``) or chemical
            systems (``Li-Fe-O,Si-*``).
        api_key: key of the user's account; by default the environment variable MP_API_KEY, which also
            reaches workers.
        properties: fields of the summary document to fetch.
        units: units of further properties.
        search: further keyword arguments of mp-api's ``materials.summary.search``:
            ``{"energy_above_hull": (0, 0.1)}``.
        endpoint: another server of the same interface.
        max_atoms: largest number of atoms per cell that is read.

    Raises:
        SourceError: mp-api is not installed, there is no key, or ``spec`` is none of these.
    """
    try:
        importlib.import_module("mp_api.client")
    except ImportError as error:
        raise SourceError(
            f"The Materials Project needs its client mp-api ({error}); "
            "install it with: pip install 'nucleate[mp]'"
        ) from error
    if not (api_key or os.environ.get(KEY_VARIABLE)):
        raise SourceError(
            "The Materials Project needs an API key: get one at "
            f"https://next-gen.materialsproject.org/api and set {KEY_VARIABLE}"
        )
    criteria = {**_criteria(spec), **(search or {})}
    dataset = replace(DATASET, units={**UNITS, **(units or {})})
    return MaterialsProject(dataset, criteria, tuple(properties), api_key, endpoint, max_atoms)


def _criteria(spec: str) -> dict[str, Any]:
    parts = [part for part in re.split(r"[\s,;]+", spec.strip()) if part]
    if not parts:
        # Without any criterion the client fetches the whole collection into the user's home folder.
        return {"deprecated": False}
    if all(_MATERIAL_ID.fullmatch(part) for part in parts):
        return {"material_ids": parts}
    if all(_CHEMICAL_SYSTEM.fullmatch(part) for part in parts):
        return {"chemsys": parts}
    raise SourceError(f"mp: takes material ids (mp-149,mp-13) or chemical systems (Li-Fe-O); got {spec!r}")


@dataclass(frozen=True, repr=False)
class MaterialsProject(DatasetSource):
    """Entries of the Materials Project that meet some criteria.

    Attributes:
        dataset: name, units, terms and citation.
        criteria: keyword arguments of the client's search.
        properties: fields of the summary document to fetch.
        api_key: the user's key, None for the one in the environment.
        endpoint: of the interface, None for the public one.
        max_atoms: largest number of atoms per cell that is read.
    """

    dataset: Dataset
    criteria: Mapping[str, Any]
    properties: tuple[str, ...] = PROPERTIES
    api_key: str | None = None
    endpoint: str | None = None
    max_atoms: int = 1000

    def __repr__(self) -> str:
        # Written out so that the key stays out of logs and error messages.
        return f"MaterialsProject(criteria={dict(self.criteria)}, properties={self.properties})"

    def tasks(self) -> Iterator[Task]:
        """Groups of material ids; the ids alone are fetched first, which is quick even for all of them.

        Raises:
            SourceError: the service refuses the key or the criteria, or does not answer.
        """
        found = self._search(fields=["material_id"], **self.criteria)
        ids = sorted({official_id(_value(document, "material_id")) for document in found}, key=_natural)
        if not ids:
            problem = "The Materials Project has no entry that meets the criteria."
            yield Task(key="search", file=self._place, count=1, problem=problem)
        for start in range(0, len(ids), ENTRIES_PER_TASK):
            group = tuple(ids[start : start + ENTRIES_PER_TASK])
            details = {"ids": group}
            yield Task(key=f"{group[0]}-{len(group)}", file=self._place, count=len(group), details=details)

    def read(self, task: Task) -> Iterator[Record | Rejection]:
        """The crystals of one group of ids.

        Raises:
            SourceError: the service does not answer; the group may be read again later.
        """
        if task.problem is not None:
            yield Rejection(self._place, None, None, task.problem)
            return
        wanted = list(task.details["ids"])
        fields = ["material_id", "structure", "builder_meta", *self.properties]
        documents = {}
        for document in self._search(material_ids=wanted, fields=fields):
            documents[official_id(_value(document, "material_id"))] = document
        for material_id in wanted:
            if material_id not in documents:
                reason = f"The Materials Project gave no document for {material_id}"
                yield Rejection(self._place, material_id, material_id, reason)
            else:
                yield self.record(material_id, documents[material_id])

    def record(self, material_id: str, document: Any) -> Record | Rejection:
        """The record of one summary document, as a mapping or as the client's model of it."""
        try:
            structure = _value(document, "structure")
            if structure is None:
                raise ParseError(f"{material_id} has no structure")
            if isinstance(structure, Mapping):
                from pymatgen.core import Structure  # noqa: PLC0415 - slow to import

                structure = Structure.from_dict(dict(structure))
            cell = unit_cell_from_pymatgen(structure, name=material_id, max_atoms=self.max_atoms)
        except Exception as error:
            # a foreign document: whatever goes wrong is its reason, not the end
            return Rejection(self._place, material_id, material_id, reason_of(error), category_of(error))
        properties = {name: _plain(_value(document, name)) for name in self.properties}
        terms = _value(_value(document, "builder_meta"), "license")
        return self.dataset.record(
            material_id,
            cell,
            properties=properties,
            file=self._place,
            row=material_id,
            database_id=material_id,
            licence=_LICENCES.get(str(terms)),
            url=f"https://next-gen.materialsproject.org/materials/{material_id}",
        )

    @property
    def _place(self) -> str:
        return self.endpoint or "https://api.materialsproject.org"

    def _search(self, **criteria: Any) -> list[Any]:
        from mp_api.client import MPRester  # noqa: PLC0415 - the extra [mp]

        try:
            with MPRester(
                self.api_key or os.environ.get(KEY_VARIABLE),
                endpoint=self.endpoint,
                use_document_model=False,
                mute_progress_bars=True,
            ) as client:
                return list(client.materials.summary.search(all_fields=False, **criteria))
        except Exception as error:
            # the client raises its own and its dependencies' types alike
            raise SourceError(
                f"The Materials Project did not answer: {_without_key(reason_of(error), self.api_key)}"
            ) from None


def official_id(material_id: Any) -> str:
    """The id as the Materials Project's pages write it: ``mp-149`` for the client's ``mp-aaaaaaft``."""
    from emmet.core.mpid import AlphaID  # noqa: PLC0415 - comes with the extra [mp]

    return str(AlphaID(str(material_id)).string)


def _without_key(text: str, api_key: str | None) -> str:
    for key in filter(None, (api_key, os.environ.get(KEY_VARIABLE))):
        text = text.replace(key, "***")
    return text


def _value(document: Any, name: str) -> Any:
    if isinstance(document, Mapping):
        return document.get(name)
    return getattr(document, name, None)


def _plain(value: Any) -> Any:
    """Models and enumerations of the client as plain values."""
    if hasattr(value, "model_dump"):
        return value.model_dump()
    return getattr(value, "value", value)


def _natural(material_id: str) -> tuple[str, int, str]:
    prefix, _, number = material_id.partition("-")
    return prefix, int(number) if number.isdigit() else 0, number
