"""Verdicts on disk: what a killed worker wrote is taken in once, artefacts come first, keys see what decides."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from faulty_emt import metals

from nucleate.energetics.records import crystal_to_json
from nucleate.screening.funnel_state import reason_kind
from nucleate.screening.hull_step import HullStep
from nucleate.screening.hull_step import Settings as HullSettings
from nucleate.screening.journal import Journal, TaskJournal, artefacts
from nucleate.screening.records import crystal_of_record, result_key
from nucleate.screening.step import Resources, StepItem, StepResult
from nucleate.screening.stored_item import StoredItem

COPPER, GOLD = metals("Cu", "Au")


def test_what_a_killed_worker_wrote_is_taken_in_once(tmp_path: Path) -> None:
    task = TaskJournal(tmp_path, "t1")
    task.put("a" * 32, StepResult(GOLD, "passed", {"x": 1.5}, files={"deep/plot.png": b"PNG"}), COPPER)
    task.put("b" * 32, StepResult(COPPER, "left", {"x": np.float64("nan")}, "too high"), COPPER)
    for path in (tmp_path / "tasks" / "t1").glob("*.jsonl"):
        path.write_bytes(path.read_bytes() + b"0badc0de cccc {")  # the line it was at when it was killed
    journal = Journal(tmp_path)
    assert len(journal) == 2
    assert not (tmp_path / "tasks" / "t1").exists()
    passed, left = journal.get("a" * 32), journal.get("b" * 32)
    assert passed is not None
    assert left is not None
    again = crystal_of_record(passed, COPPER)
    assert np.array_equal(again.lattice_params, GOLD.lattice_params)
    assert (left["columns"], left["reason"], left["crystal"]) == ({"x": None}, "too high", None)
    assert [(name, path.read_bytes()) for name, path in artefacts(tmp_path, "a" * 32, passed)] == [
        ("deep/plot.png", b"PNG")
    ]
    assert len(Journal(tmp_path)) == 2
    TaskJournal(tmp_path, "t2").put(
        "a" * 32, StepResult(COPPER), COPPER
    )  # done twice by a worker cut off meanwhile
    assert Journal(tmp_path).get("a" * 32) == passed  # the first verdict stands


def test_artefacts_stay_in_the_folder_of_their_candidate(tmp_path: Path) -> None:
    task = TaskJournal(tmp_path, "t")
    for name in ("../escape", "/etc/passwd", ""):
        with pytest.raises(ValueError, match="no name of a file"):
            task.put("d" * 32, StepResult(COPPER, files={name: b""}), COPPER)
    assert "d" * 32 not in task


def test_a_key_changes_with_the_crystal_the_step_and_what_it_uses_only() -> None:
    step = HullStep(HullSettings(), Resources())
    first = result_key(step, "digest", StepItem("one", COPPER, {"energy_per_atom": -3.7, "other": 1}))
    assert result_key(step, "digest", StepItem("two", COPPER, {"energy_per_atom": -3.7, "other": 2})) == first
    others = {
        result_key(step, "digest", StepItem("one", COPPER, {"energy_per_atom": -3.6})),
        result_key(step, "digest", StepItem("one", GOLD, {"energy_per_atom": -3.7})),
        result_key(step, "another", StepItem("one", COPPER, {"energy_per_atom": -3.7})),
    }
    assert len(others | {first}) == 4
    line = {"id": "one", "given": {"known": -1.5}, "crystal": crystal_to_json(COPPER)}
    stored = StoredItem(
        json.dumps(line).encode(), (b'{"columns": {"energy_per_atom": -3.7}, "crystal": null}',)
    )
    assert stored.key(step, "digest") == first  # made of the texts on disk, without the crystal
    assert stored.item().properties == {"given.known": -1.5, "energy_per_atom": -3.7}


def test_a_verdict_has_a_reason_exactly_when_the_crystal_leaves() -> None:
    with pytest.raises(ValueError, match="has a reason exactly when"):
        StepResult(COPPER, "left")
    with pytest.raises(ValueError, match="has a reason exactly when"):
        StepResult(COPPER, "passed", reason="why not")


def test_reasons_are_counted_without_their_numbers() -> None:
    kinds = {
        reason_kind(f"{above:.3f} eV/atom above the hull, more than 0.1") for above in (0.123, 1.5, 12.0)
    }
    assert kinds == {"# eV/atom above the hull, more than #"}
