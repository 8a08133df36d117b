"""Rows chunk by chunk, resumed, in any number of processes; a family that fails does not cost the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nearest_family
import pyarrow as pa
import pytest
from distributed import LocalCluster

from nucleate.data import Store
from nucleate.errors import ConfigError, NucleateError
from nucleate.evaluation.candidate_store import CandidateStore
from nucleate.evaluation.column import Column
from nucleate.evaluation.family import FAMILIES, check_names, load_family
from nucleate.evaluation.reading import store_candidates
from nucleate.evaluation.reference import Reference
from nucleate.evaluation.scoring import Progress, Score, rows_table, score
from nucleate.evaluation.settings import Settings
from nucleate.evaluation.workers import Workers


@pytest.fixture
def stored(crystal_folder: Path, tmp_path: Path) -> CandidateStore:
    return store_candidates(crystal_folder, str(tmp_path / "candidates")).candidates


def _cluster() -> LocalCluster:
    """Threads of this process: the family of the tests is known here only."""
    return LocalCluster(
        n_workers=1,
        threads_per_worker=2,
        processes=False,
        dashboard_address=None,
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
    )


def _score(candidates: CandidateStore, tmp_path: Path, **changed: Any) -> Score:
    options: dict[str, Any] = {
        "folder": tmp_path / "work",
        "settings": Settings(),
        "seed": 0,
        "reference": None,
        "cache_folder": tmp_path / "cache",
        "workers": Workers(1),
        **changed,
    }
    return score(candidates, ["nearest"], **options)


def test_rows_averages_and_columns_across_the_set(
    stored: CandidateStore, tmp_path: Path, nearest_calls: list[int]
) -> None:
    seen: list[Progress] = []
    result = _score(stored, tmp_path, on_progress=seen.append)
    assert not result.problems
    assert nearest_calls == [5, 5, 5, 1]
    expected = [nearest_family.nearest(c) for c in stored]
    assert result.table.column("nearest").to_pylist() == pytest.approx(expected)
    metrics = {metric.name: metric for metric in result.metrics["nearest"]}
    assert metrics["far_enough"].value == pytest.approx(14 / 16)
    assert metrics["far_enough"].n == 16
    assert metrics["first"].value == pytest.approx(14 / 16)
    assert [p.done for p in seen] == [0, 5, 10, 15, 16]
    assert {p.stage for p in seen} == {"nearest"}


def test_finished_chunks_are_not_computed_again(
    stored: CandidateStore, tmp_path: Path, nearest_calls: list[int]
) -> None:
    nearest_family.FAIL_AT.append("c11")
    broken = _score(stored, tmp_path)
    assert broken.problems == {"nearest": "c11 cannot be scored"}
    assert nearest_calls == [5, 5, 5]
    nearest_calls.clear()
    nearest_family.FAIL_AT.clear()
    whole = _score(stored, tmp_path)
    assert nearest_calls == [5, 1]
    nearest_calls.clear()
    again = _score(stored, tmp_path)
    assert nearest_calls == []
    assert again.table.equals(whole.table)
    # A setting the family does not use changes nothing; one it uses changes all.
    _score(stored, tmp_path, settings=replace(Settings(), stol=0.7))
    assert nearest_calls == []
    _score(stored, tmp_path, settings=replace(Settings(), min_distance=0.7))
    assert nearest_calls == [5, 5, 5, 1]


def test_what_only_the_whole_set_depends_on_costs_no_rows(
    stored: CandidateStore, tmp_path: Path, nearest_calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    across = nearest_family.NearestFamily.across

    def counted(self: Any, candidates: Any, table: Any, context: Any) -> Any:
        asked.append(context.settings.stol)
        return across(self, candidates, table, context)

    monkeypatch.setattr(nearest_family.NearestFamily, "across", counted)
    _score(stored, tmp_path)
    _score(stored, tmp_path, settings=replace(Settings(), stol=0.7))  # used nowhere: nothing is computed
    assert (asked, len(nearest_calls)) == ([0.3], 4)
    monkeypatch.setattr(nearest_family.NearestFamily, "uses_across", ("stol",))
    for stol in (0.3, 0.7, 0.7):
        _score(stored, tmp_path, settings=replace(Settings(), stol=stol))
    assert (asked, len(nearest_calls)) == ([0.3, 0.3, 0.7], 4)


def test_fingerprints_serve_any_reference_seed_and_cutoff() -> None:
    family = load_family("distribution")
    assert not family.uses
    assert not family.uses_reference
    assert set(family.uses_across) == {"cov_structure_cutoff", "cov_composition_cutoff", "reference_sample"}


def test_a_damaged_chunk_is_named_and_computed_again(
    stored: CandidateStore, tmp_path: Path, nearest_calls: list[int]
) -> None:
    _score(stored, tmp_path)
    chunk = sorted((tmp_path / "work" / "rows").rglob("*.parquet"))[0]
    chunk.write_bytes(b"PAR1")
    assert "was damaged" in _score(stored, tmp_path).problems["nearest"]
    nearest_calls.clear()
    assert not _score(stored, tmp_path).problems
    assert len(nearest_calls) == 1


def test_two_processes_give_the_rows_of_one(
    stored: CandidateStore, tmp_path: Path, nearest_calls: list[int]
) -> None:
    alone = _score(stored, tmp_path)
    # Threads of this process: the family of the tests is known here only.
    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=2,
            processes=False,
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
        ) as cluster,
        Workers(1, cluster.scheduler_address) as workers,
    ):
        together = _score(stored, tmp_path, folder=tmp_path / "other", workers=workers)
        assert list(workers.map(abs, range(-20, 0))) == list(range(20, 0, -1))
    assert not together.problems
    assert together.table.equals(alone.table)


def test_an_interrupted_run_with_workers_goes_on(
    stored: CandidateStore, tmp_path: Path, nearest_calls: list[int]
) -> None:
    def stop(state: Progress) -> None:
        if state.done >= 5:
            raise KeyboardInterrupt

    with _cluster() as cluster:
        with pytest.raises(KeyboardInterrupt), Workers(1, cluster.scheduler_address) as workers:
            _score(stored, tmp_path, workers=workers, on_progress=stop)
        with Workers(1, cluster.scheduler_address) as workers:
            nearest_calls.clear()
            whole = _score(stored, tmp_path, workers=workers)
    assert len(nearest_calls) < 4
    assert whole.table.num_rows == 16


def test_the_held_out_part_is_scored_with_the_same_functions(
    stored: CandidateStore, tmp_path: Path, reference_store: Store, nearest_calls: list[int]
) -> None:
    reference = Reference.open(reference_store.location, tmp_path / "cache")
    held_out = reference.held_out_store(100, seed=0)
    assert len(held_out) == len(reference.held_out)
    theirs = _score(held_out, tmp_path, reference=reference, subject="held_out")
    ours = _score(stored, tmp_path, reference=reference)
    found = {m.name: m for m in theirs.metrics["nearest"]}
    assert found["far_enough"].value == 1
    assert found["w_density"].value != {m.name: m for m in ours.metrics["nearest"]}["w_density"].value
    again = reference.held_out_store(100, seed=0)
    assert again.digest == held_out.digest


def test_what_a_family_did_not_declare_is_refused() -> None:
    family = nearest_family.family()
    with pytest.raises(NucleateError, match="gave 1 rows for 2 crystals"):
        rows_table(family, [{"nearest": 1.0}], 2)
    with pytest.raises(NucleateError, match="do not declare: colour"):
        rows_table(family, [{"colour": "red"}], 1)
    with pytest.raises(NucleateError, match="that are no double"):
        rows_table(family, [{"nearest": "far"}], 1)
    assert rows_table(family, [{}, {}], 2).num_rows == 2


def test_a_missing_library_is_named_with_its_extra(
    stored: CandidateStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needs_more.py").write_text("import a_library_nobody_has\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(FAMILIES, "needy", "needs_more")
    monkeypatch.setitem(FAMILIES, "nearest", "nearest_family")
    options = {"folder": tmp_path / "work", "settings": Settings(), "seed": 0, "reference": None}
    result = score(stored, ["needy", "nearest"], cache_folder=tmp_path, workers=Workers(1), **options)  # type: ignore[arg-type]
    assert "a_library_nobody_has" in result.problems["needy"]
    assert "nucleate[evaluate]" in result.problems["needy"]
    assert "nearest" in result.metrics


def test_a_bug_in_a_family_is_named_with_its_place(
    stored: CandidateStore, tmp_path: Path, nearest_calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest_family, "nearest", lambda candidate: 1 / 0)
    problem = _score(stored, tmp_path).problems["nearest"]
    assert "Bug in the metrics 'nearest' at test_scoring.py" in problem
    assert "ZeroDivisionError" in problem


def test_names_of_families_are_checked() -> None:
    assert check_names(["stability", "validity"]) == ("validity", "stability")
    with pytest.raises(ConfigError, match="no family of metrics 'valid'; there are validity, symmetry"):
        check_names(["valid"])
    with pytest.raises(ConfigError, match="Name at least one"):
        check_names([])
    with pytest.raises(ConfigError, match="no setting 'min_dist'"):
        Settings().digest(["min_dist"])
    assert Column("a", pa.int8(), "b").public
    assert callable(load_family)
