"""Materials Project: documents valid by emmet's model, and the real client against a loopback server."""

from __future__ import annotations

import json
import sys
import urllib.parse

import pytest

from nucleate.data.record import Record, Rejection
from nucleate.data.sources import materials_project, open_source
from nucleate.data.sources.materials_project import DATASET, MaterialsProject
from nucleate.errors import SourceError

KEY = "k" * 32

# The client's dependencies warn about themselves and each other; none of it is ours.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def documents(structures):
    """Documents as the interface sends them, each valid by emmet's schema of the summary."""
    summary = pytest.importorskip("emmet.core.summary", reason="needs the extra [mp]")
    result = []
    for i, structure in enumerate(structures.values()):
        document = summary.SummaryDoc.model_validate(
            {
                "material_id": f"mp-{i + 1}",
                "structure": structure.as_dict(),
                "nsites": len(structure),
                "elements": [str(e) for e in structure.composition.elements],
                "nelements": 2,
                "composition": structure.composition.as_dict(),
                "composition_reduced": structure.composition.reduced_composition.as_dict(),
                "formula_pretty": structure.composition.reduced_formula,
                "formula_anonymous": "AB",
                "chemsys": structure.composition.chemical_system,
                "volume": structure.volume,
                "density": float(structure.density),
                "density_atomic": structure.volume / len(structure),
                "symmetry": {"crystal_system": "Cubic", "symbol": "Fm-3m", "number": 225,
                             "point_group": "m-3m",
                             "symprec": 0.1, "version": "2", "angle_tolerance": 5.0, "hall": ""},
                "deprecated": False,
                "last_updated": "2024-01-01T00:00:00",
                "energy_per_atom": -1.0,
                "uncorrected_energy_per_atom": -1.0,
                "formation_energy_per_atom": -0.5 * i,
                "energy_above_hull": 0.0,
                "is_stable": True,
                "band_gap": 2.0 + i,
                "bulk_modulus": {"voigt": 10.0, "reuss": 9.0, "vrh": 9.5},
                "theoretical": False,
                "property_name": "summary",
                "origins": [],
                "warnings": [],
                "task_ids": [f"mp-{i + 1}"],
                "has_props": {},
                "builder_meta": {"license": "BY-NC" if i == 2 else "BY-C"},
            }
        )  # fmt: skip
        result.append(document)
    return result


def check(record, i, structures, same_crystal):
    assert isinstance(record, Record)
    assert same_crystal(record.structure, list(structures.values())[i])
    assert record.properties["formation_energy_per_atom"] == -0.5 * i
    assert record.properties["bulk_modulus.vrh"] == 9.5
    assert record.properties["is_stable"] is True
    assert "shear_modulus" not in record.properties
    assert record.units["bulk_modulus.vrh"] == "GPa"
    assert record.units["band_gap"] == "eV"
    assert record.provenance.licence == ("CC-BY-NC-4.0" if i == 2 else "CC-BY-4.0")
    assert record.provenance.url.endswith(f"mp-{i + 1}")


def test_documents_of_emmets_schema(documents, structures, same_crystal):
    source = MaterialsProject(DATASET, {})
    for i, document in enumerate(documents):
        check(source.record(f"mp-{i + 1}", document), i, structures, same_crystal)
        sent = json.loads(document.model_dump_json())
        sent["structure"] = list(structures.values())[i].as_dict()
        check(source.record(f"mp-{i + 1}", sent), i, structures, same_crystal)


def test_fields_exist_in_emmets_schema():
    summary = pytest.importorskip("emmet.core.summary", reason="needs the extra [mp]")
    known = set(summary.SummaryDoc.model_fields)
    assert set(materials_project.PROPERTIES) <= known
    assert {name.split(".")[0] for name in materials_project.UNITS} <= known
    # Negative control: the check would notice a field that the schema has not got.
    assert "e_above_hull" not in known


def test_client_against_a_server_on_loopback(
    documents, structures, same_crystal, http_server, read_all, monkeypatch
):
    pytest.importorskip("mp_api.client", reason="needs the extra [mp]")
    monkeypatch.setattr(materials_project, "ENTRIES_PER_TASK", 2)
    plain = []
    for document, structure in zip(documents, structures.values()):
        sent = json.loads(document.model_dump_json())
        sent["structure"] = structure.as_dict()
        plain.append(sent)
    assert plain[1]["material_id"] != "mp-2"  # the schema writes ids of the new kind, mp-aaaaaaac

    class Answers(dict):
        def get(self, path, default=None):
            parts = urllib.parse.urlsplit(path)
            query = dict(urllib.parse.parse_qsl(parts.query))
            if parts.path.startswith("/heartbeat"):
                return json.dumps(
                    {"db_version": "2025.9.25", "version": "0.84.6", "access_controlled_batch_ids": []}
                ).encode()
            if parts.path.startswith("/materials/summary"):
                wanted = query.get("material_ids", "mp-1,mp-2,mp-3").split(",")
                fields = query.get("_fields", "").split(",")
                found = [doc for i, doc in enumerate(plain, 1) if f"mp-{i}" in wanted]
                data = [{name: doc[name] for name in fields if name in doc} for doc in found]
                skip, limit = int(query.get("_skip", 0)), int(query.get("_limit", 1000))
                return json.dumps(
                    {"data": data[skip : skip + limit], "meta": {"total_doc": len(data)}}
                ).encode()
            return None

    server = http_server({})
    server.answers = Answers()
    source = open_source("mp:", api_key=KEY, endpoint=server.url)
    assert KEY not in repr(source)
    contents = read_all(source)
    assert [record.id for record in contents.records] == ["mp-1", "mp-2", "mp-3"]
    assert [task.count for task in source.tasks()] == [2, 1]
    for i, record in enumerate(contents.records):
        check(record, i, structures, same_crystal)
    assert all(headers.get("x-api-key") == KEY for path, headers in server.requests if "summary" in path)


def test_disorder_and_missing_structures_are_named(structures):
    source = MaterialsProject(DATASET, {})
    mixed = structures["rocksalt"].copy()
    mixed[0] = {"Na": 0.5, "K": 0.5}
    for structure in (mixed.as_dict(), None, {"a": 1}):
        item = source.record("mp-1", {"material_id": "mp-1", "structure": structure})
        assert isinstance(item, Rejection)
        assert item.id == "mp-1"


@pytest.mark.parametrize(
    ("spec", "criteria"),
    [
        ("", {"deprecated": False}),
        ("mp-149, mp-13", {"material_ids": ["mp-149", "mp-13"]}),
        ("Li-Fe-O", {"chemsys": ["Li-Fe-O"]}),
        ("Si-*,Li-O", {"chemsys": ["Si-*", "Li-O"]}),
    ],
)
def test_what_may_be_asked(spec, criteria, monkeypatch):
    pytest.importorskip("mp_api.client", reason="needs the extra [mp]")
    assert open_source(f"mp:{spec}", api_key=KEY).criteria == criteria


def test_way_out_without_key_or_client(monkeypatch):
    monkeypatch.delenv("MP_API_KEY", raising=False)
    monkeypatch.setitem(sys.modules, "mp_api.client", None)
    with pytest.raises(SourceError, match=r"pip install 'nucleate\[mp\]'"):
        open_source("mp:")
    monkeypatch.undo()
    monkeypatch.delenv("MP_API_KEY", raising=False)
    pytest.importorskip("mp_api.client", reason="needs the extra [mp]")
    with pytest.raises(SourceError, match="MP_API_KEY"):
        open_source("mp:mp-149")
    with pytest.raises(SourceError, match="chemical systems"):
        open_source("mp:what is this", api_key=KEY)


def test_order_and_spelling_of_ids():
    ids = ["mp-10", "mp-9", "mvc-1", "mp-100"]
    assert sorted(ids, key=materials_project._natural) == ["mp-9", "mp-10", "mp-100", "mvc-1"]
    pytest.importorskip("emmet.core.mpid", reason="needs the extra [mp]")
    assert materials_project.official_id("mp-aaaaaaft") == materials_project.official_id("mp-149") == "mp-149"
