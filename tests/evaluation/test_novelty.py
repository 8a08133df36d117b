"""Uniqueness and novelty against plain loops over pymatgen's StructureMatcher."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

import nucleate.evaluation.set_matching as set_matching
from nucleate.crystal import UnitCell, encode
from nucleate.crystal.convert import unit_cell_to_pymatgen
from nucleate.data import Store, build_store
from nucleate.data.bundled import bundled_crystal, load_bundled
from nucleate.evaluation.candidate_store import CandidateStore
from nucleate.evaluation.context import Context
from nucleate.evaluation.formula_index import NO_FORMULA, formula_keys
from nucleate.evaluation.matcher import Matcher
from nucleate.evaluation.metric import Metric
from nucleate.evaluation.novelty import family
from nucleate.evaluation.reading import store_candidates
from nucleate.evaluation.reduced_cell import reduce_cell
from nucleate.evaluation.reference import Reference
from nucleate.evaluation.set_matching import representatives

QUARTZ = "sio2-alpha-quartz-p3-121"


def small_cells(largest: int = 8) -> list[UnitCell]:
    cells = [encode(c.unit_cell).crystal.unit_cell("primitive") for c in load_bundled()]
    return [cell for cell in cells if cell.num_atoms <= largest]


def changed(cell: UnitCell, rng: np.random.Generator, kind: int) -> UnitCell:
    """A supercell, a permutation of axes, a slight or a strong rattle, or other species."""
    if kind == 0:
        made = unit_cell_to_pymatgen(cell).make_supercell([2, 1, 1], in_place=False)
        numbers = np.array([site.specie.Z for site in made])
        return UnitCell(np.array(made.lattice.matrix), np.array(made.frac_coords), numbers)
    if kind == 1:
        return UnitCell(cell.lattice[[2, 0, 1]], cell.frac_coords[:, [2, 0, 1]], cell.atomic_numbers)
    if kind == 4:
        return UnitCell(cell.lattice, cell.frac_coords, 57 + cell.atomic_numbers % 14)
    step = rng.normal(size=cell.frac_coords.shape) * (0.03 if kind == 2 else 0.6)
    strain = np.eye(3) + rng.normal(size=(3, 3)) * (0.01 if kind == 2 else 0.1)
    lattice = cell.lattice @ strain
    return UnitCell(lattice, cell.frac_coords + step @ np.linalg.inv(lattice), cell.atomic_numbers)


@pytest.fixture(scope="module")
def cells() -> list[UnitCell]:
    rng = np.random.default_rng(3)
    plain = small_cells()[:20]
    copies = [changed(cell, rng, i % 5) for i, cell in enumerate(plain * 2)]
    order = rng.permutation(len(plain) + len(copies))
    return [(plain + copies)[i] for i in order]


@pytest.fixture(scope="module")
def candidates(cells: list[UnitCell], tmp_path_factory: pytest.TempPathFactory) -> CandidateStore:
    clash = UnitCell(4.0 * np.eye(3), np.zeros((2, 3)), np.array([11, 17]))
    folder = tmp_path_factory.mktemp("candidates")
    return store_candidates([*cells, clash], str(folder)).candidates


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    folder = tmp_path_factory.mktemp("reference")
    return Reference(build(folder, small_cells()[6:16]), folder / "cache")


def build(folder: Path, cells: list[UnitCell]) -> Store:
    table = {
        "id": [f"known-{i}" for i in range(len(cells))],
        "numbers": [c.atomic_numbers.tolist() for c in cells],
        "lattice": [c.lattice.ravel().tolist() for c in cells],
        "frac_coords": [c.frac_coords.ravel().tolist() for c in cells],
    }
    pq.write_table(pa.table(table), folder / "cells.parquet")
    build_store(folder / "cells.parquet", folder / "store")
    return Store.open(folder / "store")


def evaluated(
    candidates: CandidateStore, context: Context
) -> tuple[dict[str, list[object]], dict[str, Metric]]:
    table = candidates.base_table()
    columns = family().across(candidates, table, context)
    for column in family().columns:
        values = columns.get(column.name, [None] * len(candidates))
        table = table.append_column(column.name, pa.array(values, type=column.type))
    metrics = {metric.name: metric for metric in family().summary(table, context)}
    return {name: list(values) for name, values in columns.items()}, metrics


def test_shares_equal_a_plain_computation(
    cells: list[UnitCell], candidates: CandidateStore, reference: Reference, tmp_path: Path
) -> None:
    columns, metrics = evaluated(candidates, Context(reference, cache=tmp_path))
    structures: list[Structure] = [unit_cell_to_pymatgen(cell) for cell in cells]
    matcher = StructureMatcher()
    for place, structure in enumerate(structures):
        structure.properties["row"] = place
    groups = matcher.group_structures(structures)
    first = sorted(group[0].properties["row"] for group in groups)
    assert [row for row, unique in enumerate(columns["unique"]) if unique] == first
    assert metrics["uniqueness"].value == pytest.approx(len(groups) / len(candidates))
    sizes = sorted(n for n, unique in zip(columns["num_copies"], columns["unique"]) if unique)
    assert sizes == sorted(len(group) for group in groups)

    known = [unit_cell_to_pymatgen(cell) for cell in small_cells()[6:16]]
    novel = [not any(matcher.fit(s, k) for k in known) for s in structures]
    assert columns["novel"] == [*novel, False]
    assert metrics["novelty"].value == pytest.approx(sum(novel) / len(candidates))
    assert metrics["unique_and_novel"].value == pytest.approx(
        sum(novel[row] for row in first) / len(candidates)
    )
    assert 0.2 < np.mean(novel) < 0.9
    assert 0.3 < len(first) / len(cells) < 0.9
    for row, name in enumerate(columns["reference_id"]):
        if name is not None:
            assert matcher.fit(structures[row], known[int(str(name).removeprefix("known-"))])


def test_work_in_small_blocks_and_tasks_changes_nothing(
    candidates: CandidateStore, reference: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = evaluated(candidates, Context(reference, cache=tmp_path / "whole"))
    for name, value in (("_RECORDS_PER_BLOCK", 5), ("_CELLS_PER_JOB", 2), ("_COMPARISONS_PER_JOB", 1)):
        monkeypatch.setattr(set_matching, name, value)
    blocks, _ = evaluated(candidates, Context(reference, cache=tmp_path / "blocks"))
    assert blocks == whole
    kept = list((tmp_path / "blocks").glob("matching*"))
    assert len(kept) > 5

    def refuse(*args: object) -> None:
        raise AssertionError("a finished block was computed again")

    monkeypatch.setattr(set_matching, "_match_block", refuse)
    again, _ = evaluated(candidates, Context(reference, cache=tmp_path / "blocks"))
    assert again == whole


def test_without_a_reference_only_uniqueness_is_measured(candidates: CandidateStore, tmp_path: Path) -> None:
    columns, metrics = evaluated(candidates, Context(None, cache=tmp_path))
    assert "novel" not in columns
    assert metrics["uniqueness"].value is not None
    assert metrics["novelty"].value is None
    assert "no reference" in metrics["novelty"].note


def test_a_set_of_copies_has_one_unique_crystal_and_other_elements_are_unique(tmp_path: Path) -> None:
    cell = bundled_crystal("srtio3-strontium-titanate").unit_cell
    rng = np.random.default_rng(0)
    copies = [changed(cell, rng, kind) for kind in (0, 1, 2)]
    others = [
        UnitCell(cell.lattice, cell.frac_coords, np.where(cell.atomic_numbers == 38, z, cell.atomic_numbers))
        for z in (20, 56)
    ]
    store = store_candidates([cell, *copies, *others], str(tmp_path / "c")).candidates
    columns, metrics = evaluated(store, Context(None, cache=tmp_path))
    assert columns["unique"] == [True, False, False, False, True, True]
    assert columns["duplicate_of"] == [None, 0, 0, 0, None, None]
    assert metrics["uniqueness"].value == pytest.approx(0.5)


def test_the_mirror_image_is_a_duplicate_and_said_to_be_one(tmp_path: Path) -> None:
    quartz = bundled_crystal(QUARTZ).unit_cell
    left = UnitCell(quartz.lattice, -quartz.frac_coords, quartz.atomic_numbers)
    rock_salt = next(c.unit_cell for c in load_bundled() if c.formula == "NaCl")
    inverted = UnitCell(rock_salt.lattice, -rock_salt.frac_coords, rock_salt.atomic_numbers)
    cells = [quartz, quartz, left, rock_salt, inverted]
    columns, metrics = evaluated(
        store_candidates(cells, str(tmp_path / "c")).candidates, Context(None, cache=tmp_path)
    )
    assert columns["unique"] == [True, False, False, True, False]
    assert columns["duplicate_is_mirror"] == [None, False, True, None, False]
    assert metrics["mirror_duplicates"].value == pytest.approx(1 / 5)


def test_the_held_out_sample_is_not_compared_with_itself(reference: Reference, tmp_path: Path) -> None:
    rows = reference.held_out_rows(100, 0)
    cells = [reference.held_out.crystal(int(i)).unit_cell("primitive") for i in rows]
    store = store_candidates(cells, str(tmp_path / "c")).candidates
    itself, _ = evaluated(store, Context(reference, cache=tmp_path))
    assert not any(itself["novel"])
    columns, metrics = evaluated(store, Context(reference, cache=tmp_path, subject="held_out"))
    assert any(columns["novel"])
    assert "not held out" in metrics["novelty"].protocol


def test_groups_depend_on_the_order_because_matching_is_not_transitive() -> None:
    """The rule is first come, first served; the middle one of a chain joins what came before it."""
    matcher = Matcher()
    copper = np.array([29])
    chain = [
        reduce_cell(UnitCell(4.0 * np.diag([1, 1, r]), np.zeros((1, 3)), copper)) for r in (1, 1.25, 1.5)
    ]
    assert representatives(chain, matcher).tolist() == [0, 0, 2]
    middle_first = [chain[1], chain[0], chain[2]]
    assert representatives(middle_first, matcher).tolist() == [0, 0, 0]


def test_keys_are_equal_exactly_where_formulas_are() -> None:
    formulas = pa.chunked_array([pa.array(["O3SrTi", None, "NaCl"]), pa.array(["O3SrTi", "Cl2Na2"])])
    keys = formula_keys(formulas)
    assert keys[0] == keys[3]
    assert len({keys[0], keys[2], keys[4]}) == 3
    assert keys[1] == NO_FORMULA
    assert len(formula_keys(pa.chunked_array([], type=pa.string()))) == 0
