"""The funnel: one row and a reason for every candidate; dedupe and hull against pymatgen; folders, settings."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from ase.build import bulk
from faulty_emt import metals
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Composition

from nucleate.crystal import Crystal, encode
from nucleate.data import build_store
from nucleate.data.bundled import bundled_crystal
from nucleate.errors import ConfigError, ScreeningError
from nucleate.evaluation.reading import read_candidates
from nucleate.screening.funnel import ScreeningReport, screen
from nucleate.screening.settings import ScreeningSettings
from nucleate.screening.step import Resources

ENERGIES = {"Cu": -3.7, "Au": -3.2, "Cu3Au": -3.64, "CuAu": -3.55, "CuAu3": -3.38}
"""eV/atom."""


def _alloy(name: str, a: float = 3.9) -> Any:
    """Copper, gold and their ordered alloys on the face-centred lattice, as ASE atoms."""
    atoms = bulk("Cu", "fcc", a=a, cubic=True)
    sites = {
        "Cu": "Cu Cu Cu Cu",
        "Au": "Au Au Au Au",
        "Cu3Au": "Au Cu Cu Cu",
        "CuAu": "Cu Cu Au Au",
        "CuAu3": "Cu Au Au Au",
    }
    atoms.set_chemical_symbols(sites[name].split())
    return atoms


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``reference`` (a store with energies) and ``candidates.extxyz``: copies, one high up, one without energy."""
    from ase.io import write

    folder = tmp_path_factory.mktemp("alloys")
    references = []
    for name, energy in ENERGIES.items():
        atoms = _alloy(name)
        atoms.info["known"] = energy
        references.append(atoms)
    write(folder / "reference.extxyz", references)
    build_store(folder / "reference.extxyz", folder / "reference")
    rows = [
        ("Cu3Au", 3.9, -3.60),
        ("Cu3Au", 3.93, -3.60),
        ("CuAu", 3.9, -3.2),
        ("CuAu3", 3.9, -3.45),
        ("Cu", 3.6, None),
    ]
    candidates = []
    for name, a, value in rows:
        atoms = _alloy(name, a)
        if value is not None:
            atoms.info["known"] = value
        candidates.append(atoms)
    write(folder / "candidates.extxyz", candidates)
    return folder


def _known(
    tables: Path, out: Path, *changes: str, steps: Sequence[str] = ("dedupe", "hull")
) -> ScreeningReport:
    settings = ScreeningSettings.of(
        steps, changes, resources=Resources(reference=str(tables / "reference"), energy_column="known")
    )
    return screen(str(tables / "candidates.extxyz"), out, settings)


def _rows(out: Path) -> list[dict[str, Any]]:
    return pq.read_table(out / "crystals.parquet").to_pylist()


def test_the_hull_of_known_energies_is_pymatgens(tables: Path, tmp_path: Path) -> None:
    report = _known(tables, tmp_path / "out", "hull.threshold=0.05")
    rows = _rows(tmp_path / "out")
    diagram = PhaseDiagram(
        [
            PDEntry(Composition(name), energy * Composition(name).num_atoms)
            for name, energy in ENERGIES.items()
        ]
    )
    for row in rows:
        if row["energy_above_hull"] is None:
            continue
        formula = Composition(row["formula"])
        entry = PDEntry(formula, row["given.known"] * formula.num_atoms)
        _, above = diagram.get_decomp_and_e_above_hull(entry, allow_negative=True)
        assert row["energy_above_hull"] == pytest.approx(above, abs=1e-9)
        assert row["formation_energy"] == pytest.approx(diagram.get_form_energy_per_atom(entry), abs=1e-9)
    assert [row["status"] for row in rows] == ["passed", "left", "left", "passed", "failed"]
    assert [row["last_step"] for row in rows] == ["hull", "dedupe", "hull", "hull", "hull"]
    assert rows[1]["duplicate_of"] == rows[0]["id"]
    assert rows[2]["reason"].startswith("0.350 eV/atom above the hull")
    assert rows[4]["reason"] == "it has no number in given.known"
    assert rows[3]["energy_above_hull"] < 0  # below the hull: it would be a new vertex
    assert [(count.step, count.given, count.passed) for count in report.counts] == [
        ("read", 5, 5),
        ("dedupe", 5, 4),
        ("hull", 4, 2),
    ]


def test_the_folder_holds_what_the_page_says_and_can_be_read_again(tables: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _known(tables, out, "hull.threshold=0.05")
    assert sorted(path.name for path in (out / "crystals").iterdir()) == [
        "candidates-0.cif",
        "candidates-3.cif",
    ]
    for name in ("funnel.png", "hull_diagrams/Cu-Au.png"):
        assert (out / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    run = json.loads((out / "run.json").read_text())
    assert run["num_survivors"] == 2
    assert run["asked"]["settings"]["hull"]["threshold"] == 0.05
    assert {c["description"] != "" for c in json.loads((out / "columns.json").read_text()).values()} == {True}
    survivors = [c.crystal for c in read_candidates(str(out / "crystals"))]
    assert [crystal.formula for crystal in survivors if crystal] == ["AuCu3", "Au3Cu"]
    assert len((out / "crystals.csv").read_text().splitlines()) == 6
    assert sum(candidate.crystal is not None for candidate in read_candidates(str(out))) == 5


def test_copies_are_those_of_pymatgen(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    atoms = []
    for name in ("CuAu", "Cu3Au", "CuAu3", "Cu3Au", "CuAu", "Cu3Au"):
        crystal = _alloy(name, a=rng.uniform(3.7, 4.2))
        crystal.rotate(rng.uniform(0, 180), "z", rotate_cell=True)
        crystal.translate(rng.uniform(0, 3, 3))
        atoms.append(crystal)
    settings = ScreeningSettings.of(["dedupe"])
    screen(atoms, tmp_path / "out", settings)
    kept = [int(row["id"]) for row in _rows(tmp_path / "out") if row["status"] == "passed"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        structures = [Crystal.from_structure(a).crystal.to_structure("primitive") for a in atoms]
        groups = StructureMatcher().group_structures(structures)
    first = sorted(min(i for i, s in enumerate(structures) if any(s is g for g in group)) for group in groups)
    assert kept == first == [0, 1, 2]


@pytest.mark.parametrize("steps", [["dedupe", "relax", "dedupe"], ["relax", "dedupe"]])
def test_what_falls_together_when_it_relaxes_stands_once(steps: list[str], tmp_path: Path) -> None:
    """L1_0 CuAu stretched inside its layers, another crystal for StructureMatcher in another group: EMT heals it."""
    atoms = [_alloy("CuAu", 3.9), _alloy("Cu3Au", 3.9), _alloy("CuAu", 3.9)]
    atoms[2].set_cell(atoms[2].cell * [1, 1, 1.25], scale_atoms=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = [Crystal.from_structure(a).crystal.to_structure("primitive") for a in atoms]
        assert not StructureMatcher().fit(given[0], given[2])
    settings = ScreeningSettings.of(
        steps, ["relax.check=false"], resources=Resources(potential="ase.calculators.emt:EMT")
    )
    report = screen(atoms, tmp_path / "out", settings)
    rows = _rows(tmp_path / "out")
    name = "dedupe-2" if steps[0] == "dedupe" else "dedupe"
    assert [row["status"] for row in rows] == ["passed", "passed", "left"]
    assert [row["last_step"] for row in rows] == [name] * 3
    assert rows[2]["reason"] == f"after relax a copy of {rows[0]['id']}"
    assert rows[2]["duplicate_of"] == rows[0]["id"]
    assert rows[2]["energy_per_atom"] == pytest.approx(rows[0]["energy_per_atom"], abs=1e-3)
    assert (report.counts[-1].step, report.counts[-1].given, report.counts[-1].passed) == (name, 3, 2)
    # What is left over are different crystals, also to pymatgen.
    relaxed = [
        c.crystal.to_structure("primitive") for c in read_candidates(str(tmp_path / "out")) if c.crystal
    ]
    assert StructureMatcher().fit(relaxed[0], relaxed[2])
    assert not StructureMatcher().fit(relaxed[0], relaxed[1])
    assert screen(atoms, tmp_path / "out", settings).num_known == 3  # the second run repeats nothing


def test_more_steps_go_on_from_the_verdicts_of_fewer(tables: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _known(tables, out, "hull.threshold=0.05")
    again = _known(tables, out, "hull.threshold=0.05")
    assert again.num_known == 4  # nothing is judged twice
    stricter = _known(tables, out, "hull.threshold=-0.01", steps=("hull",))
    assert stricter.num_known == 4  # another threshold is another verdict
    assert [path.name for path in (out / "crystals").iterdir()] == ["candidates-3.cif"]


def test_files_that_are_no_crystals_stay_rows(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bad.cif").write_text("nothing")
    for crystal in metals("Cu", "Au"):
        (tmp_path / "in" / f"{crystal.formula}.cif").write_text(crystal.to_cif(crystal.formula))
    report = screen(str(tmp_path / "in"), tmp_path / "out", ScreeningSettings.of(["dedupe"]))
    rows = {row["id"]: row for row in _rows(tmp_path / "out")}
    assert rows["bad"]["status"] == "failed"
    assert rows["bad"]["last_step"] == "read"
    assert rows["bad"]["reason"]
    assert report.counts[0].failed == 1
    assert report.num_survivors == 2


def test_what_cannot_be_is_refused_before_any_work(tables: Path, tmp_path: Path) -> None:
    for steps, changes, words in (
        (["relax", "relax"], [], "2 times"),
        (["dedupe", "hull", "dedupe"], [], "at most twice"),
        (["dedupe", "relax", "dedupe", "dft", "dedupe"], [], "at most twice"),
        (["melt"], [], "no step 'melt'"),
        (["relax"], ["hull.threshold=1"], "not in --steps"),
        (["relax"], ["fmax=1"], r"STEP\.NAME=VALUE"),
        (["relax", "hull"], ["relax.pressure=5"], "without pressure"),
    ):
        with pytest.raises(ConfigError, match=words):
            ScreeningSettings.of(steps, changes)
    with pytest.raises(ConfigError, match="no property 'unknown'"):
        screen(
            metals("Cu"),
            tmp_path / "x",
            ScreeningSettings.of(
                ["hull"], resources=Resources(reference=str(tables / "reference"), energy_column="unknown")
            ),
        )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("...")
    with pytest.raises(ScreeningError, match=r"thesis\.tex"):
        screen(metals("Cu"), tmp_path / "mine", ScreeningSettings.of(["dedupe"]))
    screen(metals("Cu"), tmp_path / "one", ScreeningSettings.of(["dedupe"]))
    with pytest.raises(ScreeningError, match="1 structures, not of 2 structures"):
        screen(metals("Cu", "Au"), tmp_path / "one", ScreeningSettings.of(["dedupe"]))


def test_energies_of_a_potential_make_the_hull_of_a_reference(tables: Path, tmp_path: Path) -> None:
    settings = ScreeningSettings.of(
        ["relax", "hull"],
        ["relax.fmax=0.001", "relax.check=false", "hull.fmax=0.001", "hull.window=1"],
        resources=Resources("ase.calculators.emt:EMT", reference=str(tables / "reference")),
    )
    screen([_alloy("Cu3Au", 3.75)], tmp_path / "out", settings)
    (row,) = _rows(tmp_path / "out")
    # The reference holds the same crystal, far from its volume: relaxed, it is the candidate.
    assert row["energy_above_hull"] == pytest.approx(0, abs=2e-4)
    assert row["hull_energy_source"] == "energy_per_atom"
    assert row["hull_entries"] >= 3
    assert -0.2 < row["formation_energy"] < 0  # EMT orders Cu3Au
    assert row["status"] == "passed"


def test_crystals_go_through_chgnet_together_as_they_do_without_the_funnel(tmp_path: Path) -> None:
    pytest.importorskip("chgnet")
    from nucleate.energetics import RelaxationSettings, load_potential, relax

    crystals = [
        encode(bundled_crystal(name).unit_cell).crystal for name in ("tio2-rutile", "mnp-manganese-phosphide")
    ]
    screen(crystals, tmp_path / "out", ScreeningSettings.of(["relax"], ["relax.check=false"]))
    alone = relax(
        crystals, load_potential("chgnet"), settings=RelaxationSettings(fmax=0.03, max_evaluations=500)
    )
    for row, relaxation in zip(_rows(tmp_path / "out"), alone):
        assert row["status"] == "passed"
        assert row["energy_per_atom"] == pytest.approx(relaxation.energy_per_atom, abs=1e-4)
        assert row["volume_per_atom"] == pytest.approx(relaxation.crystal.volume_per_atom, rel=2e-3)
