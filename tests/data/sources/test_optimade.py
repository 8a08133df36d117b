"""OPTIMADE: against the optimade package's server on loopback, and awkward servers of our own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import numpy as np
import pytest

from nucleate.data.sources import download, open_source
from nucleate.data.sources.optimade_providers import resolve_provider
from nucleate.data.sources.optimade_structure import unit_cell_from_optimade
from nucleate.errors import DisorderedStructureError, InvalidStructureError, ParseError, SourceError

QUICK = download.RetryPolicy(attempts=3, first_wait=0.01, longest_wait=0.02, timeout=30.0)


@pytest.fixture(scope="module")
def reference_server(tmp_path_factory):
    """The optimade package's own server with its test data, in a process of its own."""
    pytest.importorskip("optimade.server.create_app", reason="needs optimade[server]")
    pytest.importorskip("uvicorn", reason="needs optimade[server]")
    folder = tmp_path_factory.mktemp("optimade")
    config = folder / "config.json"
    # The names under which the test data store what OPTIMADE calls otherwise, as in the package's own tests.
    aliases = {
        "id": "task_id",
        "immutable_id": "_id",
        "chemical_formula_descriptive": "pretty_formula",
        "chemical_formula_reduced": "pretty_formula",
        "chemical_formula_anonymous": "formula_anonymous",
    }
    settings = {
        "database_backend": "mongomock",
        "page_limit": 5,
        "log_dir": str(folder),
        "aliases": {"structures": aliases},
        "provider_fields": {"structures": [{"name": "chemsys", "type": "string", "description": "-"}]},
    }
    config.write_text(json.dumps(settings))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "OPTIMADE_CONFIG_FILE": str(config), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "uvicorn", "optimade.server.main:app", "--port", str(port)]
    log = (folder / "log.txt").open("wb")
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            if process.poll() is not None:
                pytest.fail(f"the OPTIMADE server did not start: {(folder / 'log.txt').read_text()[-2000:]}")
            try:
                urllib.request.urlopen(f"{url}/v1/info", timeout=2).close()
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.25)
        yield url
    finally:
        process.terminate()
        process.wait(20)
        log.close()


@pytest.fixture(scope="module")
def test_data():
    """The structures behind that server, as its package ships them."""
    from importlib.resources import files

    return json.loads((files("optimade.server") / "data" / "test_structures.json").read_text())


def test_reference_server_gives_every_structure_once(reference_server, test_data, read_all):
    source = open_source(f"optimade:{reference_server}", page_limit=5, retry=QUICK)
    tasks = list(source.tasks())
    assert [task.count for task in tasks] == [5, 5, 5, 2]
    contents = read_all(source)
    by_id = {entry["task_id"]: entry for entry in test_data}
    assert len(contents.records) + len(contents.rejections) == len(by_id) == 17
    assert {record.id for record in contents.records} | {r.id for r in contents.rejections} == set(by_id)
    assert len(contents.records) >= 14
    for record in contents.records:
        entry = by_id[record.id]
        np.testing.assert_allclose(record.structure.lattice, entry["lattice_vectors"])
        np.testing.assert_allclose(record.structure.cart_coords, entry["cartesian_site_positions"], atol=1e-9)
        symbols = {species["name"]: species["chemical_symbols"][0] for species in entry["species"]}
        from pymatgen.core import Element

        expected = [Element(symbols[name]).Z for name in entry["species_at_sites"]]
        np.testing.assert_array_equal(record.structure.atomic_numbers, expected)
        assert record.provenance.url.endswith(f"/structures/{record.id}")
    # One of the test structures has a cell 0.004 Å wide.
    assert {(r.id, "without volume" in r.reason) for r in contents.rejections} == {("mpf_632", True)}


def test_one_page_can_be_read_again(reference_server):
    source = open_source(f"optimade:{reference_server}/v1", page_limit=5, retry=QUICK)
    task = list(source.tasks())[2]
    first, second = ([item.id for item in source.read(task)] for _ in range(2))
    assert first == second
    assert len(first) == 5


def test_filter_and_properties(reference_server, read_all):
    for spec in (
        f"optimade:{reference_server}?filter=nelements=1",
        f"optimade:{reference_server}?filter=nelements%3D1",
    ):
        contents = read_all(open_source(spec, retry=QUICK))
        assert contents.records
        assert all(len(set(record.structure.atomic_numbers)) == 1 for record in contents.records)
    source = open_source(
        f"optimade:{reference_server}",
        filter='elements HAS "Ac"',
        properties=["nelements", "elements_ratios", "_exmpl_chemsys"],
        retry=QUICK,
    )
    record = read_all(source).records[0]
    assert record.properties["nelements"] == len(set(record.structure.atomic_numbers))
    assert sum(record.properties["elements_ratios"]) == pytest.approx(1.0)
    assert "Ac" in record.properties["_exmpl_chemsys"].split("-")


def test_wrong_filter_is_the_services_own_words(reference_server):
    source = open_source(f"optimade:{reference_server}?filter=this is no filter", retry=QUICK)
    with pytest.raises(SourceError, match="status 400"):
        list(source.tasks())


def test_no_match(reference_server, read_all):
    contents = read_all(open_source(f"optimade:{reference_server}?filter=nelements>90", retry=QUICK))
    assert contents.announced == 0


def test_oqmd_preset_against_the_reference_server(reference_server, read_all):
    source = open_source("oqmd:nelements=1", base_url=reference_server, retry=QUICK)
    assert source.name == "oqmd"
    assert source.units["_oqmd_delta_e"] == "eV/atom"
    contents = read_all(source)
    assert contents.records
    assert contents.records[0].provenance.licence == "CC-BY-4.0"


SPECIES = [{"name": "Si", "chemical_symbols": ["Si"], "concentration": [1.0]}]


def structure(**changes):
    attributes = {
        "lattice_vectors": [[4.0, 0, 0], [0, 4.0, 0], [0, 0, 4.0]],
        "cartesian_site_positions": [[0.0, 0, 0]],
        "species": SPECIES,
        "species_at_sites": ["Si"],
        "structure_features": [],
        "dimension_types": [1, 1, 1],
        "nsites": 1,
        "_x_gap": 1.25,
    }
    return {**attributes, **changes}


def cursor_server(http_server, count=7, per_page=3):
    """A provider that pages by an opaque cursor and refuses to sort."""

    def page(path: str) -> bytes | None:
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(path).query))
        if "sort" in query:
            return None
        start = int(query.get("cursor", "c0")[1:])
        ids = range(start, min(start + per_page, count))
        full = query["response_fields"] != "id"
        data = [{"type": "structures", "id": f"s{i}", "attributes": structure() if full else {}} for i in ids]
        following = (
            f"/v1/structures?page_limit=3&cursor=c{start + per_page}" if start + per_page < count else None
        )
        links = {"next": {"href": server.url + following} if following else None}
        return json.dumps({"data": data, "links": links, "meta": {"data_returned": count}}).encode()

    info = {
        "data": {"properties": {"_x_gap": {"type": "float", "unit": "eV"}, "_x_name": {"type": "string"}}}
    }

    class Answers(dict):
        def get(self, path, default=None):
            if path.startswith("/v1/info/structures"):
                return json.dumps(info).encode()
            return page(path) if path.startswith("/v1/structures") else None

    server = http_server({})
    server.answers = Answers()
    return server


def test_cursor_pages_units_and_a_server_that_cannot_sort(http_server, read_all, monkeypatch):
    server = cursor_server(http_server)
    # The loopback server answers an unknown request with 404 where a provider says 501; both mean "cannot
    # sort".
    monkeypatch.setattr("nucleate.data.sources.optimade._CANNOT_SORT", (404,))
    contents = read_all(open_source(f"optimade:{server.url}", retry=QUICK))
    assert [record.id for record in contents.records] == [f"s{i}" for i in range(7)]
    assert contents.records[0].properties == {"_x_gap": 1.25}
    assert contents.records[0].units == {"_x_gap": "eV"}
    full = [path for path, _ in server.requests if "lattice_vectors" in path]
    assert len(full) == 3  # no structure travels twice


def test_retries_and_giving_up(http_server):
    server = http_server({"/ok": b"{}"})
    server.failures["/ok"] = [503, 429]
    assert download.get_json(f"{server.url}/ok", policy=QUICK) == {}
    assert len(server.requests) == 3
    server.failures["/ok"] = [500] * 3
    with pytest.raises(SourceError, match=r"3 attempts.*500"):
        download.get_json(f"{server.url}/ok", policy=QUICK)
    with pytest.raises(SourceError, match="404"):
        download.get_json(f"{server.url}/none", policy=QUICK)
    assert sum(path == "/none" for path, _ in server.requests) == 1  # a refusal is not asked again
    server.answers["/ok"] = b"<html>"
    with pytest.raises(SourceError, match="no JSON"):
        download.get_json(f"{server.url}/ok", policy=QUICK)


def test_only_http_addresses_are_followed(http_server, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("{}")
    for address in (secret.as_uri(), "ftp://127.0.0.1/x", "http:///x"):
        with pytest.raises(SourceError, match="http or https"):
            download.get(address, policy=QUICK)
    server = http_server({})
    server.redirects["/r"] = secret.as_uri()
    with pytest.raises(SourceError):
        download.get(f"{server.url}/r", policy=QUICK)


def test_service_that_is_not_there():
    with pytest.raises(SourceError, match="did not answer in 3 attempts"):
        list(open_source("optimade:http://127.0.0.1:9", retry=QUICK).tasks())


def test_registry(http_server):
    server = http_server({})
    link = {"attributes": {"link_type": "external"}}
    providers = [{"id": "two", **link}, {"id": "one", **link}, {"id": "none", **link}]
    for entry in providers:
        address = None if entry["id"] == "none" else f"{server.url}/{entry['id']}"
        entry["attributes"] = {**entry["attributes"], "base_url": address}

    def children(*names):
        data = [
            {"id": n, "attributes": {"link_type": "child", "base_url": f"{server.url}/db/{n}"}} for n in names
        ]
        return json.dumps({"data": data}).encode()

    default = {"data": {"relationships": {"default": {"data": {"id": "b"}}}}}
    server.answers = {
        "/links": json.dumps({"data": providers}).encode(),
        "/one/v1/links": children("only"),
        "/two/v1/links": children("a", "b"),
        "/two/v1/info": json.dumps(default).encode(),
    }

    def resolve(provider):
        return resolve_provider(provider, retry=QUICK, registry=f"{server.url}/links")

    assert resolve("one") == f"{server.url}/db/only"
    assert resolve("two") == f"{server.url}/db/b"
    assert resolve("two/a") == f"{server.url}/db/a"
    with pytest.raises(SourceError, match="two/a, two/b"):
        resolve("two/c")
    with pytest.raises(SourceError, match="serves no database"):
        resolve("none")
    with pytest.raises(SourceError, match="did you mean 'one'"):
        resolve("onne")


MIXED = [{"name": "Si", "chemical_symbols": ["Si", "Ge"], "concentration": [0.5, 0.5]}]
VACANT = [{"name": "Si", "chemical_symbols": ["Si", "vacancy"], "concentration": [0.9, 0.1]}]


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"species": MIXED}, DisorderedStructureError, r"Si \(site 1\)"),
        ({"species": VACANT}, DisorderedStructureError, "disordered"),
        ({"structure_features": ["assemblies"]}, DisorderedStructureError, "exclude each other"),
        ({"structure_features": ["unknown_positions"]}, InvalidStructureError, "unknown"),
        ({"structure_features": ["implicit_atoms"]}, InvalidStructureError, "not among the sites"),
        (
            {"species": [{**SPECIES[0], "attached": ["H"], "nattached": [2]}]},
            InvalidStructureError,
            "attached",
        ),
        (
            {"species": [{"name": "Si", "chemical_symbols": ["X"], "concentration": [1.0]}]},
            InvalidStructureError,
            "X",
        ),
        ({"dimension_types": [1, 1, 0]}, InvalidStructureError, "2 directions"),
        ({"lattice_vectors": None}, ParseError, "lattice_vectors"),
        ({"species": [{"name": "Ge", "chemical_symbols": ["Ge"], "concentration": [1.0]}]}, ParseError, "Si"),
        ({"cartesian_site_positions": [[None, 0, 0]]}, InvalidStructureError, "NaN"),
        ({"cartesian_site_positions": [[0, 0, 0], [1, 1, 1]]}, InvalidStructureError, "coordinates"),
        ({"lattice_vectors": [[1, 0, 0], [1, 0, 0], [0, 0, 1]]}, InvalidStructureError, "volume"),
    ],
)
def test_what_is_no_list_of_atoms_is_refused(changes, error, words):
    with pytest.raises(error, match=words):
        unit_cell_from_optimade(structure(**changes), name="s1")


def test_deuterium():
    species = [{"name": "D", "chemical_symbols": ["H"], "concentration": [1.0], "mass": [2.014]}]
    cell = unit_cell_from_optimade(structure(species=species, species_at_sites=["D"]), name="s")
    assert cell.atomic_numbers.tolist() == [1]
    assert cell.site_properties["mass_number"].tolist() == [2]
