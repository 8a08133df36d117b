"""Negative controls of the family ``stability``, on alloys of the metals that ASE's effective medium theory knows.

As ``test_negative_controls.py``: + must rise, - must fall, = must not move, . may do either.
"""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write

from nucleate.crystal import UnitCell
from nucleate.data import build_store
from nucleate.evaluation.controls import CONTROLS, control_set
from nucleate.evaluation.report import Report
from nucleate.evaluation.run import evaluate
from nucleate.evaluation.settings import Settings

SETTINGS = Settings(potential="ase.calculators.emt:EMT", relax_fmax=0.02, resamples=20, reference_sample=5)
FACES = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]

MATRIX = """
control              stability_unknown rmsd_to_relaxed energy_above_hull stable_0.1 w_formation_energy
shuffled_species             +                .                .             .              .
random_symmetric             =                .                +             -              +
rattled_in_symmetry          =                .                =             =              =
rattled_to_p1                =                +                .             .              .
compressed                   =                .                .             .              .
duplicates                   =                =                =             =              =
mirror_images                =                =                =             =              =
supercells                   =                =                =             =              =
redescribed                  =                =                =             =              =
"""
# Alloys that are compressed relax back, but for one that flies apart; those rattled in their symmetry come back whole.
METRICS, *LINES = (line.split() for line in MATRIX.strip().splitlines())
CELLS = {line[0]: dict(zip(METRICS[1:], line[1:])) for line in LINES}
MARGINS = {
    "stability_unknown": 0.2,
    "rmsd_to_relaxed": 0.05,
    "energy_above_hull": 0.02,
    "stable_0.1": 0.2,
    "w_formation_energy": 0.1,
}


def alloys() -> list[Atoms]:
    """Ordered alloys near their equilibrium: L1_2, L1_0 and B2."""
    made = [
        Atoms("AuCu3", scaled_positions=FACES, cell=[3.75] * 3, pbc=True),
        Atoms("Cu2Au2", scaled_positions=FACES, cell=[3.9, 3.9, 3.7], pbc=True),
        Atoms("CuAu3", scaled_positions=FACES, cell=[3.95] * 3, pbc=True),
        Atoms("AlNi3", scaled_positions=FACES, cell=[3.57] * 3, pbc=True),
        Atoms("AlNi", scaled_positions=[[0, 0, 0], [0.5] * 3], cell=[2.9] * 3, pbc=True),
        Atoms("PdAg3", scaled_positions=FACES, cell=[4.05] * 3, pbc=True),
    ]
    return made


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Report]:
    """The report of the alloys (``base``) and of each control."""
    folder = tmp_path_factory.mktemp("alloys")
    (folder / "known").mkdir()
    for i, atoms in enumerate(
        [*alloys(), *(bulk(symbol) for symbol in ("Al", "Ni", "Cu", "Pd", "Ag", "Au"))]
    ):
        write(folder / "known" / f"r{i}.cif", atoms)
    build_store(folder / "known", folder / "store", fractions=(1.0, 0.0, 0.0))
    cells = [UnitCell(np.array(a.cell), a.get_scaled_positions(), np.array(a.numbers)) for a in alloys()]
    found = {}
    for name in ("base", *CELLS):
        found[name] = evaluate(
            cells if name == "base" else control_set(name, cells),
            folder / "store",
            metrics=["stability"],
            settings=SETTINGS,
            cache=folder / "cache",
        )
    return found


def test_the_matrix_names_every_control():
    assert set(CELLS) == set(CONTROLS)


@pytest.mark.parametrize("control", CELLS)
def test_energies_move_where_they_must(reports: dict[str, Report], control: str):
    wrong = []
    for metric, expected in CELLS[control].items():
        assert not reports[control].problems
        before, after = (reports[name].metrics[metric].value for name in ("base", control))
        assert before is not None
        assert after is not None
        moved = {
            "=": abs(after - before) <= 2e-3,
            "+": after >= before + MARGINS[metric],
            "-": after <= before - MARGINS[metric],
            ".": True,
        }[expected]
        if not moved:
            wrong.append(f"{metric} went from {before:.4g} to {after:.4g}, expected {expected}")
    assert not wrong, "\n".join(wrong)
