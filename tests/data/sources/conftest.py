"""Small real crystals as pymatgen structures and CIF text, and a reader of everything a source holds."""

from __future__ import annotations

import http.server
import pickle
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from nucleate.crystal.unit_cell import UnitCell
from nucleate.data.record import Record, Rejection, Source


@dataclass(frozen=True)
class Contents:
    """What a source gave, and how many inputs its tasks announced."""

    records: list[Record]
    rejections: list[Rejection]
    announced: int | None

    def reasons(self) -> list[str]:
        return [rejection.reason for rejection in self.rejections]


@pytest.fixture(scope="session")
def read_all() -> Callable[[Source], Contents]:
    def read(source: Source) -> Contents:
        assert isinstance(source, Source)
        tasks = list(source.tasks())
        assert len({task.key for task in tasks}) == len(tasks)
        assert [task.key for task in source.tasks()] == [task.key for task in tasks]
        records: list[Record] = []
        rejections: list[Rejection] = []
        for task in tasks:
            worker, work = pickle.loads(pickle.dumps((source, task)))  # as it travels to a worker
            for item in worker.read(work):
                (records if isinstance(item, Record) else rejections).append(item)
        for record in records:
            assert set(record.units) <= set(record.properties)
            pickle.loads(pickle.dumps(record))
        for rejection in rejections:
            assert rejection.file
            assert rejection.reason
            assert "\n" not in rejection.reason
        counts = [task.count for task in tasks]
        return Contents(records, rejections, None if None in counts else sum(counts))

    return read


@pytest.fixture(scope="session")
def structures() -> dict:
    from pymatgen.core import Lattice, Structure

    return {
        "rocksalt": Structure.from_spacegroup(
            "Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
        ),
        "rutile": Structure.from_spacegroup(
            "P4_2/mnm", Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.3053, 0.3053, 0]]
        ),
        "quartz": Structure.from_spacegroup(
            "P3_221",
            Lattice.hexagonal(4.913, 5.405),
            ["Si", "O"],
            [[0.4697, 0, 2 / 3], [0.4135, 0.2669, 0.7858]],
        ),
    }


@pytest.fixture(scope="session")
def cifs(structures) -> dict[str, str]:
    return {name: str(structure.to(fmt="cif")) for name, structure in structures.items()}


@pytest.fixture(scope="session")
def same_crystal() -> Callable[[UnitCell, object], bool]:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    from nucleate.crystal.convert import unit_cell_to_pymatgen

    # Primitive cells and scaling are off: the very same cell is expected, in whatever frame.
    matcher = StructureMatcher(ltol=1e-4, stol=1e-3, angle_tol=1e-2, primitive_cell=False, scale=False)

    def same(cell: UnitCell, structure: object) -> bool:
        bare = UnitCell(cell.lattice, cell.frac_coords, cell.atomic_numbers)
        return bool(matcher.fit(unit_cell_to_pymatgen(bare), structure)) and np.isclose(
            cell.volume, structure.volume, rtol=1e-5
        )

    return same


class LoopbackServer:
    """A web server on loopback that answers from a mapping, and can fail or break off as told."""

    def __init__(self, answers: dict[str, bytes]) -> None:
        self.answers = answers
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.failures: dict[str, list[int]] = {}
        self.break_off: dict[str, list[int]] = {}
        self.redirects: dict[str, str] = {}
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                outer.requests.append((self.path, dict(self.headers)))
                if outer.failures.get(self.path):
                    return self.send_error(outer.failures[self.path].pop(0))
                if self.path in outer.redirects:
                    self.send_response(302)
                    self.send_header("Location", outer.redirects[self.path])
                    self.end_headers()
                    return None
                answer = outer.answers.get(self.path)
                if callable(answer):
                    answer = answer(self.path)
                if answer is None:
                    return self.send_error(404)
                start = 0
                if "Range" in self.headers:
                    start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
                    if start >= len(answer):
                        return self.send_error(416)
                self.send_response(206 if start else 200)
                body = answer[start:]
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if outer.break_off.get(self.path):
                    body = body[: outer.break_off[self.path].pop(0)]
                self.wfile.write(body)
                self.close_connection = True
                return None

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def http_server():
    servers: list[LoopbackServer] = []

    def start(answers: dict[str, bytes]) -> LoopbackServer:
        servers.append(LoopbackServer(answers))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
