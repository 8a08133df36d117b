from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import scipy.stats
from ase import Atoms
from ase.build import bulk
from ase.io import write

from nucleate.crystal import UnitCell
from nucleate.data import Store, build_store
from nucleate.energetics.batched_relaxation import relax
from nucleate.energetics.named_potentials import load_potential
from nucleate.energetics.relaxation import RelaxationSettings, displacement_rms
from nucleate.evaluation.candidate import Candidate, make_candidate
from nucleate.evaluation.context import Context
from nucleate.evaluation.family import MetricFamily
from nucleate.evaluation.reference import Reference
from nucleate.evaluation.run import evaluate
from nucleate.evaluation.settings import Settings
from nucleate.evaluation.stability import StabilityFamily, family

EMT = Settings(potential="ase.calculators.emt:EMT", relax_fmax=0.01)
FACES = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]


def alloy(symbols: str, a: float, *, c: float | None = None) -> Atoms:
    return Atoms(symbols, scaled_positions=FACES, cell=[a, a, c or a], pbc=True)


def candidate(row: int, atoms: Atoms, **given: object) -> Candidate:
    cell = UnitCell(np.array(atoms.cell), atoms.get_scaled_positions(), np.array(atoms.numbers))
    return make_candidate(row, cell, id=f"c{row}", file=f"c{row}.cif", given=given)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """A store of copper gold alloys and the metals, nothing held out by split."""
    folder = tmp_path_factory.mktemp("alloys")
    crystals = {
        "Cu3Au": alloy("AuCu3", 3.75),
        "CuAu": alloy("Cu2Au2", 3.9, c=3.7),
        "CuAu3": alloy("CuAu3", 3.95),
        "Cu": bulk("Cu"),
        "Au": bulk("Au"),
        "AlNi": Atoms("AlNi", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[2.9] * 3, pbc=True),
    }
    for name, atoms in crystals.items():
        for i, scale in enumerate((0.99, 1.0, 1.01)):
            strained = atoms.copy()
            strained.set_cell(atoms.cell * scale, scale_atoms=True)
            write(folder / f"{name}-{i}.cif", strained)
    build_store(folder, folder / "store", fractions=(1.0, 0.0, 0.0))
    return Reference(Store.open(folder / "store"), folder / "cache")


@pytest.fixture
def context(reference: Reference, tmp_path: Path) -> Context:
    return Context(reference, EMT, cache=tmp_path)


def candidates() -> list[Candidate]:
    rng = np.random.default_rng(0)
    rattled = alloy("AuCu3", 3.8)
    rattled.positions += 0.05 * rng.normal(size=(4, 3))
    clash = UnitCell(4.0 * np.eye(3), np.zeros((2, 3)), np.array([29, 29]))
    return [
        candidate(0, alloy("AuCu3", 3.85), e_above_hull=0.01),
        candidate(1, rattled),
        candidate(2, alloy("Cu2Ni2", 3.6)),  # no Cu-Ni in the reference
        candidate(3, Atoms("CuPo", scaled_positions=[[0, 0, 0], [0.5] * 3], cell=[3.3] * 3, pbc=True)),
        make_candidate(4, clash, id="clash", file="clash.cif"),
        Candidate(5, "broken", "broken.cif", None, None, "The file is empty."),
        candidate(6, Atoms("CuAu", scaled_positions=[[0, 0, 0], [0.5] * 3], cell=[3.05] * 3, pbc=True)),
    ]


def table_of(rows: list[dict[str, object]], **more: list[object]) -> pa.Table:
    columns = StabilityFamily().columns
    return pa.table(
        {c.name: pa.array([row.get(c.name) for row in rows], type=c.type) for c in columns} | more
    )


def test_it_is_a_family() -> None:
    assert isinstance(family(), MetricFamily)
    Settings().digest(family().uses)


def test_each_crystal_gets_its_row(context: Context) -> None:
    rows = family().rows(candidates(), context)
    status = [row["stability_status"] for row in rows]
    assert status == [
        "known",
        "known",
        "unknown chemistry",
        "unknown chemistry",
        "not encoded",
        "not encoded",
        "known",
    ]
    ideal, rattled, new_pair, polonium, clash, broken, cubic = rows
    assert ideal["relaxed"]
    assert ideal["relaxed_space_group"] == 221
    assert abs(ideal["energy_above_hull"]) < 2e-3  # it is a record of the reference
    assert ideal["rmsd_to_relaxed"] == pytest.approx(0.0, abs=1e-9)
    assert ideal["relaxed_volume_ratio"] < 1
    assert ideal["decomposition"].startswith("Cu3Au-")
    assert ideal["hull_subsystems"] == "1/1"
    assert ideal["dft_energy_above_hull"] == 0.01
    assert rattled["energy_above_hull"] == pytest.approx(ideal["energy_above_hull"], abs=2e-3)
    assert 0.01 < rattled["rmsd_to_relaxed"] < 0.2
    assert new_pair["energy_above_hull"] is None
    assert new_pair["formation_energy"] is not None
    assert new_pair["hull_subsystems"] == "0/1"
    assert polonium["hull_missing_elements"] == "Po"
    assert polonium["relaxed"] is None
    assert clash["relaxation_reason"]
    assert broken["relaxation_reason"] == "The file is empty."
    assert cubic["energy_above_hull"] > 0.0


def test_rows_do_not_depend_on_their_chunk(context: Context, tmp_path: Path) -> None:
    together = family().rows(candidates(), context)
    alone = [
        family().rows([c], Context(context.reference, EMT, cache=tmp_path / "other"))[0] for c in candidates()
    ]
    for a, b in zip(together, alone):
        assert a.keys() == b.keys()
        for name in a:
            assert (
                a[name] == pytest.approx(b[name], abs=1e-9)
                if isinstance(a[name], float)
                else a[name] == b[name]
            )


def test_averages_count_failures_and_leave_out_the_unknown(context: Context) -> None:
    rows = family().rows(candidates(), context)
    metrics = {m.name: m for m in family().summary(table_of(rows), context)}
    assert metrics["stable_0.1"].n == 5
    assert metrics["stable_0.1"].value == pytest.approx(3 / 5)
    assert metrics["stability_unknown"].value == pytest.approx(2 / 7)
    assert metrics["relaxation_converged"].value == pytest.approx(4 / 6)
    assert metrics["sun_0.1"].value is None
    assert "novelty" in metrics["sun_0.1"].note
    assert metrics["dft_stable_0.025"].value == 1.0
    assert metrics["dft_stable_0.025"].n == 1
    assert "ase.calculators.emt:EMT" in metrics["stable_0"].protocol
    shares = [metrics[f"stable_{t:g}"].value for t in EMT.hull_thresholds]
    assert shares == sorted(shares)


def test_sun_is_what_it_says(context: Context) -> None:
    rows = family().rows(candidates(), context)
    table = table_of(
        rows,
        unique=[True, False, True, True, None, None, True],
        novel=[True, True, True, True, None, None, True],
    )
    metrics = {m.name: m for m in family().summary(table, context)}
    assert metrics["sun_0.1"].value == pytest.approx(2 / 5)
    assert "2 of 7 crystals are of unknown chemistry" in metrics["sun_0.1"].note
    assert metrics["ssun_0.1"].value == pytest.approx(2 / 5)
    no_symmetry = table.set_column(
        table.column_names.index("relaxed_space_group"),
        "relaxed_space_group",
        pa.array([1] * 7, type=pa.int64()),
    )
    control = {m.name: m for m in family().summary(no_symmetry, context)}
    assert control["ssun_0.1"].value == 0.0
    assert control["sun_0.1"].value == metrics["sun_0.1"].value


def test_in_a_whole_evaluation_held_out_crystals_are_scored_beside(
    reference: Reference, tmp_path: Path
) -> None:
    folder = tmp_path / "cifs"
    folder.mkdir()
    write(folder / "a.cif", alloy("AuCu3", 3.85))
    write(folder / "b.cif", alloy("AuCu3", 3.85))
    write(folder / "c.cif", Atoms("CuAu", scaled_positions=[[0, 0, 0], [0.5] * 3], cell=[3.05] * 3, pbc=True))
    (folder / "d.cif").write_text("data_broken\nloop_\n_atom_site_label\n")
    report = evaluate(
        folder,
        reference.store.location,
        out=tmp_path / "out",
        metrics=("novelty", "stability"),
        settings=replace(EMT, reference_sample=4),
        cache=tmp_path / "cache",
    )
    assert not report.problems
    assert not report.reference_problems
    metrics = report.metrics
    assert (metrics["stable_0.1"].value, metrics["stable_0.1"].n) == (3 / 4, 4)
    assert metrics["sun_0.1"].value == 1 / 4  # Cu3Au is known, and twice there
    assert metrics["stable_0.1"].reference_n > 0
    assert metrics["sun_0.1"].reference is not None
    # The same reference in another folder is the same protocol.
    assert str(tmp_path) not in metrics["stable_0.1"].protocol
    assert report.about["reference"]["content_hash"][:12] in metrics["stable_0.1"].protocol
    assert report.reference_table is not None
    ours, theirs = (
        [e for e in t.column("formation_energy").to_pylist() if e is not None]
        for t in (report.table, report.reference_table)
    )
    distance = metrics["w_formation_energy"]
    assert distance.value == pytest.approx(scipy.stats.wasserstein_distance(ours, theirs))
    assert (distance.n, distance.column) == (3, "formation_energy")
    assert distance.ci95 is not None
    assert "w_formation_energy" not in {m.name for m in family().summary(report.table, Context(None, EMT))}


def test_without_a_reference_compounds_are_unknown_and_elements_are_not(tmp_path: Path) -> None:
    context = Context(None, EMT, cache=tmp_path)
    rows = family().rows([candidate(0, alloy("AuCu3", 3.75)), candidate(1, bulk("Cu"))], context)
    assert [row["stability_status"] for row in rows] == ["unknown chemistry", "known"]
    assert rows[0]["formation_energy"] is not None
    assert 0 <= rows[1]["energy_above_hull"] < 0.02
    names = {m.name for m in family().summary(table_of(rows), context)}
    assert {"stable_0", "sun_0.08", "hull_coverage"} <= names


def test_a_failed_relaxation_counts_against(tmp_path: Path) -> None:
    context = Context(
        None, Settings(potential="ase.calculators.emt:EMT", relax_steps=1, relax_fmax=1e-4), cache=tmp_path
    )
    rows = family().rows([candidate(0, bulk("Cu", a=3.8))], context)
    assert rows[0]["stability_status"] == "relaxation failed"
    assert "not converged" in rows[0]["relaxation_reason"]
    metrics = {m.name: m for m in family().summary(table_of(rows), context)}
    assert (metrics["stable_0.1"].value, metrics["stable_0.1"].n) == (0.0, 1)


def test_displacement_ignores_translation_and_cell(context: Context) -> None:
    crystal = candidates()[1].crystal
    assert crystal is not None
    relaxed = relax([crystal], load_potential(EMT.potential), settings=RelaxationSettings(fmax=0.01))[
        0
    ].crystal
    assert displacement_rms(crystal, crystal) == 0.0
    assert displacement_rms(crystal, relaxed) == pytest.approx(displacement_rms(relaxed, crystal))
    import dataclasses

    shifted = dataclasses.replace(crystal, free_coords=crystal.free_coords + 0.1)
    assert displacement_rms(crystal, shifted) == pytest.approx(0.0, abs=1e-9)
    wider = dataclasses.replace(crystal, lattice_params=crystal.lattice_params + 0.01)
    assert displacement_rms(crystal, wider) == pytest.approx(0.0, abs=1e-12)
