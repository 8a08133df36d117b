"""What a screening has found out, on disk: appended, never rewritten, shared by driver and workers without locks.

    results/*.jsonl     every verdict by content key (``energetics.ResultCache``)
    tasks/NAME/*.jsonl  verdicts of a task under way, written by its worker crystal by crystal
    files/KEY/...       artefacts of a verdict

A worker writes into the folder of its task only; the driver moves what a finished task found into ``results``. When
either is killed, the next run first takes in what the tasks had written.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from nucleate.crystal import Crystal
from nucleate.data.folder import LocalFolder
from nucleate.energetics.cache import ResultCache
from nucleate.errors import CacheError
from nucleate.screening.records import file_name, result_to_json
from nucleate.screening.step import StepResult


class VerdictLines(ResultCache):
    """Verdicts as lines of text, read many at a time and moved from folder to folder as they are."""

    def texts(self, keys: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """(key, JSON) of each key that is there, in the order in which they stand on disk: each file is opened once."""
        places = sorted((*self._places[key], key) for key in keys if key in self._places)
        for name, group in groupby(places, key=itemgetter(0)):
            with (self.folder / name).open("rb") as file:
                for _, offset, key in group:
                    file.seek(offset)
                    line = file.readline()
                    if line.endswith(b"\n") and line[9:].startswith(key.encode() + b" "):
                        yield key, line[10 + len(key) : -1]

    def take_in(self, other: VerdictLines) -> int:
        """Number of the other folder's verdicts that were new; they now stand at the end of our file.

        Raises:
            CacheError: they cannot be written, such as on a full disk; then none is taken for written.
        """
        new = [(key, text) for key, text in other.texts(other) if key not in self]
        if not new:
            return 0
        first, text = new.pop(0)
        self.put(first, json.loads(text))  # a file of our own is there now
        bodies = [key.encode() + b" " + text for key, text in new]
        lines = [b"%08x %s\n" % (zlib.crc32(body), body) for body in bodies]
        try:
            offset = self._append(b"".join(lines))
        except OSError as error:
            cause = error if error.errno else OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise CacheError(f"verdicts cannot be kept in {self.folder} ({error})") from cause
        for (key, _), line in zip(new, lines):
            self._places[key] = (self._own_name, offset)
            offset += len(line)
        self._read_up_to[self._own_name] = offset
        return len(new) + 1


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
        self._results = VerdictLines(folder / "results")
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
        new = self._results.take_in(VerdictLines(folder))
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
