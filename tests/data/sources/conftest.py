"""Small real crystals as pymatgen structures and CIF text, and a reader of everything a source holds."""

from __future__ import annotations

import pickle
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
