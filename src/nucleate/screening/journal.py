"""What a screening has found out, on disk: appended, never rewritten, shared by driver and workers without locks.

    results/*.jsonl     every verdict by content key (``energetics.ResultCache``)
    tasks/NAME/*.jsonl  verdicts of a task under way, written by its worker crystal by crystal
    files/KEY/...       artefacts of a verdict

A worker writes into the folder of its task only; the driver moves what a finished task found into ``results``. When
either is killed, the next run first takes in what the tasks had written.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nucleate.crystal import Crystal
from nucleate.data.folder import LocalFolder
from nucleate.energetics.cache import ResultCache
from nucleate.screening.records import file_name, result_to_json
from nucleate.screening.step import StepResult


class Journal:
    """The driver's view: verdicts of this and earlier runs.

    About 250 bytes a verdict are in memory; the verdicts stay on disk.

    Args:
        folder: made if it is not there; what a killed run left is taken in.

    Raises:
        CacheError: the folder cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._results = ResultCache(folder / "results")
        for left in sorted(path.name for path in (folder / "tasks").glob("*") if path.is_dir()):
            self.take_in(left)

    def __contains__(self, key: object) -> bool:
        return key in self._results

    def __len__(self) -> int:
        return len(self._results)

    def get(self, key: str) -> dict[str, Any] | None:
        """The record of a verdict, None where there is none."""
        return self._results.get(key)

    def texts(self, keys: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """(key, JSON) of many verdicts, in the order in which they stand on disk; without those that are not there."""
        return self._results.texts(keys)

    def take_in(self, task: str) -> int:
        """Verdicts of a task that were new; its folder is removed once they are kept.

        Raises:
            CacheError: they cannot be kept, such as on a full disk; the task's folder then stays.
        """
        folder = self.folder / "tasks" / task
        if not folder.is_dir():
            return 0
        new = self._results.take_in(ResultCache(folder))
        shutil.rmtree(folder, ignore_errors=True)
        return new


def artefacts(folder: Path, key: str, record: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    """(relative name, path) of the artefacts of a verdict that are there.

    Args:
        folder: of the journal.
        key: of the verdict.
        record: the verdict.
    """
    for name in record["files"]:
        path = folder / "files" / key / name
        if path.is_file():
            yield name, path


class TaskJournal:
    """A worker's view: the verdicts of its own task, those of an earlier try included.

    Args:
        folder: of the journal.
        task: name of the task.
    """

    def __init__(self, folder: Path, task: str) -> None:
        self._folder = folder
        self._results = ResultCache(folder / "tasks" / task)

    def __contains__(self, key: object) -> bool:
        return key in self._results

    def put(self, key: str, result: StepResult, given: Crystal) -> None:
        """Keep a verdict: its files first, so that a verdict that is there has them.

        Raises:
            CacheError, OSError: it cannot be written, such as on a full disk.
        """
        files = LocalFolder(self._folder / "files" / key)
        for name, content in result.files.items():
            files.write_bytes(file_name(name), content)
        self._results.put(key, result_to_json(result, given))
