from __future__ import annotations

import json
import multiprocessing
import os
import pickle
from pathlib import Path

import pytest

from nucleate.energetics.cache import ResultCache
from nucleate.errors import CacheError


def test_values_come_back_to_the_last_bit(tmp_path: Path) -> None:
    value = {"energy": 0.1 + 0.2, "text": "ü \n line", "list": [1e-300, -0.0, 3], "none": None}
    cache = ResultCache(tmp_path)
    cache.put("a", value)
    assert cache.get("a") == value
    assert cache.get("b") is None
    again = ResultCache(tmp_path)
    assert again.get("a") == value
    assert list(again) == ["a"]
    assert "a" in again


def test_a_later_value_replaces_an_earlier_one(tmp_path: Path) -> None:
    cache = ResultCache(tmp_path)
    cache.put("a", 1)
    cache.put("a", 2)
    assert cache.get("a") == 2
    assert ResultCache(tmp_path).get("a") == 2


def test_lines_cut_off_or_damaged_are_as_if_not_written(tmp_path: Path) -> None:
    cache = ResultCache(tmp_path)
    for i in range(5):
        cache.put(f"key{i}", {"value": i})
    file = next(tmp_path.glob("*.jsonl"))
    lines = file.read_bytes().splitlines(keepends=True)
    damaged = lines[1].replace(b'"value":1', b'"value":7')
    file.write_bytes(b"".join([lines[0], damaged, *lines[2:4], lines[4][:-9]]))
    cache = ResultCache(tmp_path)
    assert sorted(cache) == ["key0", "key2", "key3"]
    assert cache.damaged_lines == 1
    assert cache.get("key1") is None
    cache.put("key4", {"value": 4})  # goes to a file of its own
    assert ResultCache(tmp_path).get("key4") == {"value": 4}


def test_a_file_changed_under_an_open_cache_is_noticed(tmp_path: Path) -> None:
    cache = ResultCache(tmp_path)
    cache.put("a", 1)
    reader = ResultCache(tmp_path)
    file = next(tmp_path.glob("*.jsonl"))
    file.write_bytes(file.read_bytes().replace(b"a 1", b"a 2"))
    assert reader.get("a") is None


def test_another_process_is_seen_after_refresh(tmp_path: Path) -> None:
    reader, writer = ResultCache(tmp_path), ResultCache(tmp_path)
    writer.put("a", [1])
    assert reader.get("a") is None
    reader.refresh()
    assert reader.get("a") == [1]
    writer.put("b", [2])
    reader.refresh()
    assert reader.get("b") == [2]


def _write(folder: Path, worker: int) -> None:
    cache = ResultCache(folder)
    for i in range(50):
        cache.put(f"{worker}-{i}", {"worker": worker, "text": "x" * 3000})


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_write, args=(tmp_path, i)) for i in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    cache = ResultCache(tmp_path)
    assert len(cache) == 150
    assert cache.damaged_lines == 0
    assert cache.get("2-49")["worker"] == 2


def test_it_travels_to_workers(tmp_path: Path) -> None:
    cache = ResultCache(tmp_path)
    cache.put("a", 1)
    assert pickle.loads(pickle.dumps(cache)).get("a") == 1


def test_no_number_and_no_folder_are_refused(tmp_path: Path) -> None:
    cache = ResultCache(tmp_path / "cache")
    with pytest.raises(ValueError, match="JSON"):
        cache.put("a", float("nan"))
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="file"):
        ResultCache(tmp_path / "file")


def test_a_full_disk_loses_nothing_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ResultCache(tmp_path)
    cache.put("a", 1)
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:5]))
    with pytest.raises(CacheError, match="5 of"):
        cache.put("b", 2)
    monkeypatch.undo()
    cache.put("c", 3)
    again = ResultCache(tmp_path)
    assert sorted(again) == ["a", "c"]
    assert again.damaged_lines == 0
    assert json.dumps(again.get("c")) == "3"


def test_results_are_taken_in_as_they_stand(tmp_path: Path) -> None:
    ours, theirs = ResultCache(tmp_path / "ours"), ResultCache(tmp_path / "theirs")
    ours.put("both", "ours")
    for key, value in {"both": "theirs", "a": [1.5], "b": {"text": "x y"}}.items():
        theirs.put(key, value)
    assert ours.take_in(theirs) == 2
    for cache in (ours, ResultCache(tmp_path / "ours")):
        assert {key: cache.get(key) for key in cache} == {"both": "ours", "a": [1.5], "b": {"text": "x y"}}
        assert list(cache.texts(["b", "missing", "a"])) == [("a", b"[1.5]"), ("b", b'{"text":"x y"}')]
    assert ours.take_in(theirs) == 0


def test_nothing_counts_as_taken_in_when_it_could_not_be_written(tmp_path: Path) -> None:
    ours, theirs = ResultCache(tmp_path / "ours"), ResultCache(tmp_path / "theirs")
    theirs.put("a", 1)
    (tmp_path / "ours").rmdir()
    with pytest.raises(CacheError, match="cannot be kept"):
        ours.take_in(theirs)
    assert "a" not in ours
