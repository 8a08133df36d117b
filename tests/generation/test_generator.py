"""Generated crystals are exactly what was asked, the same for the same seed, and survive an interruption."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from gemmi import cif
from pymatgen.core import Composition
from pymatgen.core.periodic_table import Element
from pymatgen.io.cif import CifParser

import nucleate
from nucleate.crystal import Crystal, space_group
from nucleate.errors import CheckpointError, ConditionError, NucleateError
from nucleate.evaluation.own_formats import run_seconds
from nucleate.generation.condition import Condition
from nucleate.generation.generator import GenerationProgress, Generator, load
from nucleate.models.checkpoint import load_checkpoint, save_checkpoint

STEPS = 4


def _operation_error(crystal: Crystal) -> float:
    """Largest distance (Å) between an atom moved by an operation of the crystal's group and the nearest atom."""
    cell = crystal.unit_cell("conventional")
    rotations, translations = crystal.group.all_operations()
    worst = 0.0
    for rotation, translation in zip(rotations, translations):
        moved = cell.frac_coords @ rotation.T + translation
        difference = moved[:, None, :] - cell.frac_coords[None]
        difference -= np.round(difference)
        distance = np.linalg.norm(difference @ cell.lattice, axis=2)
        distance[cell.atomic_numbers[:, None] != cell.atomic_numbers[None]] = np.inf
        worst = max(worst, float(distance.min(axis=1).max()))
    return worst


def _same(a: Crystal, b: Crystal) -> bool:
    fields = ("lattice_params", "wyckoff_indices", "atomic_numbers", "free_coords")
    return a.space_group_number == b.space_group_number and all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in fields
    )


@pytest.mark.parametrize(
    ("formula", "most"),
    [("NaCl", 8), ("SrTiO3", 20), ("Fe3O4", 14), ("Li2FeSiO4", 16), ("Al2O3", 10), ("C", 4)],
)
def test_a_formula_is_obeyed_exactly(generator: Generator, formula: str, most: int) -> None:
    result = generator.generate(Condition(formula=formula, num_atoms=(1, most)), 5, 1, steps=STEPS)
    assert len(result) == 5
    for crystal, row in zip(result, result.rows):
        assert Composition(row.composition).reduced_formula == Composition(formula).reduced_formula
        assert crystal.num_atoms_primitive == row.num_atoms <= most
        assert _operation_error(crystal) < 1e-6


@pytest.mark.parametrize("first", [1, 47, 93, 139, 185])
def test_a_group_is_obeyed_exactly(generator: Generator, first: int) -> None:
    for number in range(first, min(first + 46, 231), 9):
        condition = Condition(space_groups=(number,), num_atoms=(1, 64), excluded=("O", "H"))
        (crystal,) = generator.generate(condition, 1, number, steps=STEPS)
        assert crystal.space_group_number == number
        assert not {1, 8} & set(crystal.atomic_numbers.tolist())
        assert _operation_error(crystal) < 1e-6


def test_every_other_part_of_a_condition_is_obeyed(generator: Generator) -> None:
    system = generator.generate(
        Condition(chemical_system="Li-Fe-O", num_atoms=(4, 12), crystal_system="tetragonal"),
        6,
        0,
        steps=STEPS,
    )
    for crystal, row in zip(system, system.rows):
        assert set(crystal.atomic_numbers.tolist()) == {3, 26, 8}
        assert 4 <= crystal.num_atoms_primitive <= 12
        assert row.crystal_system == "tetragonal"
    some = generator.generate(
        Condition(elements=("Ti",), allowed=("Ti", "O", "N"), num_atoms=(2, 8)), 6, 0, steps=STEPS
    )
    for crystal in some:
        assert {22} <= set(crystal.atomic_numbers.tolist()) <= {22, 8, 7}
    neutral = generator.generate(Condition(neutral=True, num_atoms=(2, 10)), 4, 0, steps=STEPS)
    assert all(row.charge_neutral for row in neutral.rows)


def test_a_template_is_obeyed_and_its_open_elements_are_filled(generator: Generator) -> None:
    (crystal,) = generator.generate(
        Condition(space_groups=(221,), template="Sr:1a Ti:1b O:3c"), 1, 0, steps=STEPS
    )
    assert crystal.wyckoff_letters == ("a", "b", "c")
    assert crystal.atomic_numbers.tolist() == [38, 22, 8]
    result = generator.generate(
        Condition(formula="SrTiO3", space_groups=(221,), template="a b c"), 4, 0, steps=STEPS
    )
    assert {crystal.formula for crystal in result} == {"O3SrTi"}
    assert {tuple(crystal.atomic_numbers.tolist()) for crystal in result} <= {(38, 22, 8), (22, 38, 8)}
    opened = generator.generate(Condition(space_groups=(136,), template="a f"), 3, 0, steps=STEPS)
    assert {crystal.wyckoff_letters for crystal in opened} == {("a", "f")}


def test_a_given_lattice_is_kept_to_the_last_digit(generator: Generator) -> None:
    lattice = (4.594, 4.594, 2.959, 90.0, 90.0, 90.0)
    condition = Condition(formula="TiO2", space_groups=(136,), template="Ti:2a O:4f", lattice=lattice)
    for crystal in generator.generate(condition, 2, 0, steps=STEPS):
        metric = crystal.lattice @ crystal.lattice.T
        assert np.allclose(metric, np.diag(np.square(lattice[:3])), atol=1e-9)


def test_the_same_seed_gives_the_same_crystals_at_any_batch_size(generator: Generator) -> None:
    condition = Condition(num_atoms=(1, 12))
    first = generator.generate(condition, 12, 5, batch_size=12, steps=10)
    again = generator.generate(condition, 12, 5, batch_size=12, steps=10)
    assert all(_same(a, b) for a, b in zip(first, again, strict=True))
    for batch_size, n in ((1, 4), (5, 12), (64, 20)):
        other = generator.generate(condition, n, 5, batch_size=batch_size, steps=10)
        for a, b in zip(first, other):
            assert (a.formula, a.space_group_number) == (b.formula, b.space_group_number)
            assert np.array_equal(a.wyckoff_indices, b.wyckoff_indices)
            cells = a.unit_cell("primitive"), b.unit_cell("primitive")
            assert np.abs(cells[0].lattice - cells[1].lattice).max() < 1e-3
            shift = cells[0].frac_coords - cells[1].frac_coords
            assert np.abs((shift - np.round(shift)) @ cells[0].lattice).max() < 1e-3
    different = generator.generate(condition, 12, 6, batch_size=12, steps=10)
    assert not all(_same(a, b) for a, b in zip(first, different, strict=True))


def test_with_the_shipped_weights_batch_sizes_differ_in_no_bit() -> None:
    shipped = load()
    condition = Condition(num_atoms=(1, 20))
    first = shipped.generate(condition, 17, 3, steps=4, restarts=1)
    for batch_size, n in ((9, 17), (1, 2)):
        other = shipped.generate(condition, n, 3, batch_size=batch_size, steps=4, restarts=1)
        assert all(_same(a, b) for a, b in zip(first, other))


def test_the_folder_holds_what_was_made(generator: Generator, tmp_path: Path) -> None:
    condition = Condition(formula="SrTiO3", num_atoms=(5, 10))
    seen: list[GenerationProgress] = []
    result = generator.generate(
        condition, 5, 0, batch_size=2, steps=STEPS, out=tmp_path / "out", on_progress=seen.append
    )
    assert (seen[-1].done, seen[-1].total, seen[-1].fraction) == (5, 5, 1.0)
    assert [p.fraction for p in seen] == sorted(p.fraction for p in seen)
    with (tmp_path / "out" / "crystals.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["id"] for row in rows] == [row.id for row in result.rows]
    assert {
        "space_group_asked",
        "space_group",
        "prototype_key",
        "density",
        "min_distance",
        "charge_neutral",
    } <= set(rows[0])
    table = pq.read_table(tmp_path / "out" / "crystals.parquet").to_pylist()
    for crystal, row, values in zip(result, result.rows, table, strict=True):
        assert np.array_equal(np.array(values["free_coords"]).reshape(-1, 3), crystal.free_coords)
        path = tmp_path / "out" / "crystals" / f"{row.id}.cif"
        (structure,) = CifParser(path, site_tolerance=1e-6, frac_tolerance=0).parse_structures(
            primitive=False
        )
        assert structure.composition.reduced_formula == "SrTiO3"
        distances = structure.distance_matrix + np.diag([np.inf] * len(structure))
        own_images = min(structure.lattice.abc)
        assert row.min_distance <= min(distances.min(), own_images) + 1e-4
        block = cif.read(str(path)).sole_block()
        assert int(block.find_value("_space_group_IT_number") or 0) == row.space_group_asked
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["asked"]["condition"] == {"formula": "SrTiO3", "num_atoms": [5, 10]}
    assert run["asked"]["weights"]["hash"] == generator.digest
    assert run["num_crystals"] == 5
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_an_interrupted_run_keeps_what_is_done_and_goes_on(generator: Generator, tmp_path: Path) -> None:
    condition = Condition(num_atoms=(1, 12))
    settings = {"batch_size": 3, "steps": STEPS}
    whole = generator.generate(condition, 8, 2, **settings)

    def press(progress: GenerationProgress) -> None:
        if progress.done == 3 and progress.fraction > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="3 of 8 crystals are kept"):
        generator.generate(condition, 8, 2, **settings, out=tmp_path / "out", on_progress=press)
    assert len(list((tmp_path / "out" / "crystals").iterdir())) == 3
    resumed = generator.generate(condition, 8, 2, **settings, out=tmp_path / "out")
    assert all(_same(a, b) for a, b in zip(whole, resumed, strict=True))
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert [sitting["num_crystals"] for sitting in run["sittings"]] == [3, 5]
    assert run["seconds"] == pytest.approx(sum(sitting["seconds"] for sitting in run["sittings"]))
    assert run["sittings"][0]["device"] == "cpu"
    assert len(generator.generate(condition, 4, 2, **settings, out=tmp_path / "out")) == 4
    assert json.loads((tmp_path / "out" / "run.json").read_text()) == run  # nothing was left to make
    more = generator.generate(condition, 10, 2, **settings, out=tmp_path / "out")
    assert len(more) == 10
    assert all(_same(a, b) for a, b in zip(whole, more))


def test_a_run_goes_on_with_the_same_weights_under_another_name(
    generator: Generator, weights: Path, tmp_path: Path
) -> None:
    condition = Condition(formula="NaCl", num_atoms=(2, 4))
    first = generator.generate(condition, 1, 0, steps=STEPS, out=tmp_path / "out")
    renamed = load(shutil.copy(weights, tmp_path / "renamed.safetensors"))
    assert renamed.digest == generator.digest
    more = renamed.generate(condition, 2, 0, steps=STEPS, out=tmp_path / "out")
    assert _same(first[0], more[0])
    other = load_checkpoint(weights)
    assert other.template is not None
    with torch.no_grad():
        other.template.end.bias += 1
    save_checkpoint(tmp_path / weights.name, other)
    with pytest.raises(NucleateError, match="holds a run with other settings"):
        load(tmp_path / weights.name).generate(condition, 2, 0, steps=STEPS, out=tmp_path / "out")


def test_a_folder_of_something_else_is_refused(generator: Generator, tmp_path: Path) -> None:
    generator.generate(Condition(formula="NaCl", num_atoms=(2, 4)), 1, 0, steps=STEPS, out=tmp_path / "out")
    with pytest.raises(NucleateError, match="seed 0 there, 1 asked"):
        generator.generate(
            Condition(formula="NaCl", num_atoms=(2, 4)), 1, 1, steps=STEPS, out=tmp_path / "out"
        )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(NucleateError, match=r"holds no generation \(thesis\.txt\)"):
        generator.generate(
            Condition(formula="NaCl", num_atoms=(2, 4)), 1, 0, steps=STEPS, out=tmp_path / "mine"
        )
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_the_time_of_a_sitting_that_was_killed_is_not_made_up(generator: Generator, tmp_path: Path) -> None:
    settings = {"batch_size": 2, "steps": 2, "out": tmp_path / "out"}
    generator.generate(Condition(num_atoms=(1, 4)), 2, 0, **settings)
    path = tmp_path / "out" / "run.json"
    run = json.loads(path.read_text())
    assert run_seconds(tmp_path / "out") == run["seconds"] > 0
    path.write_text(json.dumps({"asked": run["asked"]}))  # as it stands while the first batch is written
    generator.generate(Condition(num_atoms=(1, 4)), 4, 0, **settings)
    assert json.loads(path.read_text())["num_crystals"] == 4
    assert run_seconds(tmp_path / "out") is None


def test_a_folder_where_nothing_was_made_takes_other_settings(generator: Generator, tmp_path: Path) -> None:
    def fail(progress: GenerationProgress) -> None:
        raise ValueError("no network today")

    condition = Condition(formula="NaCl", num_atoms=(2, 4))
    with pytest.raises(ValueError, match="no network"):
        generator.generate(condition, 1, 0, steps=STEPS, out=tmp_path, on_progress=fail)
    assert json.loads((tmp_path / "run.json").read_text())["num_crystals"] == 0
    generator.generate(condition, 1, 5, steps=STEPS, out=tmp_path)
    with pytest.raises(NucleateError, match="seed 5 there, 0 asked"):
        generator.generate(condition, 1, 0, steps=STEPS, out=tmp_path)


def test_weights_in_memory_are_told_apart(generator: Generator, weights: Path) -> None:
    same, other = Generator(load_checkpoint(weights)), load_checkpoint(weights)
    assert same.digest == Generator(load_checkpoint(weights)).digest
    with torch.no_grad():
        other.template.end.bias += 1
    assert Generator(other).digest != same.digest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 0}, "n must be at least 1"),
        ({"seed": -1}, "seed must not be negative"),
        ({"batch_size": 0}, "batch_size"),
        ({"temperature": 0.0}, "temperature"),
    ],
)
def test_settings_that_cannot_be_are_refused(generator: Generator, changes: dict, message: str) -> None:
    with pytest.raises(ConditionError, match=message):
        generator.generate(**changes)


def test_a_source_is_one_the_weights_know(generator: Generator) -> None:
    assert len(generator.generate(Condition(source="wbm", num_atoms=(1, 4)), 1, 0, steps=2)) == 1
    with pytest.raises(ConditionError, match="no data source 'icsd'; they know mp_20, wbm"):
        generator.generate(Condition(source="icsd"))


def test_weights_are_found_or_missed_with_the_way_out(weights: Path, tmp_path: Path) -> None:
    assert isinstance(nucleate.load(weights), Generator)
    with pytest.raises(CheckpointError, match="There are no weights at"):
        load(tmp_path / "absent.safetensors")
    half = save_checkpoint(tmp_path / "half.safetensors", load_checkpoint(weights).replace(template=None))
    with pytest.raises(CheckpointError, match="hold no template network: train both parts"):
        load(half)


def test_no_weights_in_the_package_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, weights: Path
) -> None:
    monkeypatch.setattr("nucleate.models.checkpoint.files", lambda package: tmp_path)
    with pytest.raises(
        CheckpointError, match="name a file with --weights, or train your own with `nucleate train"
    ):
        load()
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "v1.safetensors").write_bytes(weights.read_bytes())
    assert load().name == "v1.safetensors"


BARE = """
import importlib.abc, sys

BLOCKED = {"moyopy", "pymatgen", "gemmi", "ase", "pydantic", "typer", "rich", "scipy", "jaxtyping", "matplotlib"}

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
import nucleate
salt = nucleate.Condition(formula="NaCl", num_atoms=(2, 4))
result = nucleate.load(sys.argv[1]).generate(salt, 2, steps=2, out=sys.argv[2])
print(*(row.formula for row in result.rows), result.rows[0].space_group)
"""


def test_sampling_works_on_a_bare_machine(weights: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", BARE, str(weights), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["ClNa", "ClNa", "None"]
    assert (tmp_path / "out" / "crystals.parquet").exists()


def test_rows_state_what_a_reader_can_check(generator: Generator) -> None:
    # pymatgen takes other isotopes of polonium and radon
    condition = Condition(num_atoms=(2, 10), excluded=("Po", "Rn"))
    result = generator.generate(condition, 6, 3, steps=STEPS)
    for crystal, row in zip(result, result.rows):
        structure = crystal.to_structure("primitive")
        assert row.density == pytest.approx(float(structure.density), rel=1e-3)
        assert row.num_atoms == len(structure)
        neighbours = structure.get_all_neighbors(row.min_distance + 0.01)
        assert min(n.nn_distance for atom in neighbours for n in atom) == pytest.approx(
            row.min_distance, abs=1e-6
        )
        assert {Element.from_Z(int(z)).symbol for z in crystal.atomic_numbers} == set(
            Composition(row.composition).get_el_amt_dict()
        )
        assert space_group(row.space_group_asked).crystal_system == row.crystal_system
