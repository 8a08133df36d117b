"""The test structures that were asked for: those of which no crystal came are rows too, and count as failures."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from nucleate.data.folder import open_folder
from nucleate.data.store import Store
from nucleate.errors import ConfigError
from nucleate.evaluation.candidate import Candidate
from nucleate.evaluation.candidate_store import PART_SIZE, CandidateStore, write_part
from nucleate.evaluation.csp_targets import TARGET_COLUMN, names_of_target
from nucleate.evaluation.reading import ReadingReport
from nucleate.evaluation.reference import Reference

HELD_OUT = "held-out"
"""In place of a list: all held-out records of the reference."""

AskedTargets = str | os.PathLike[str] | Sequence[str]
_SHOWN = 3


def target_ids(targets: AskedTargets, reference: Reference) -> tuple[str, ...]:
    """Ids of the test structures asked for, each once, in the order given.

    Args:
        targets: ``held-out`` for all held-out records of the reference, a text file with an id per line, or ids.
        reference: what they are records of.

    Raises:
        ConfigError: there is no such file, it names nothing, or an id is of no record of the reference.
    """
    if isinstance(targets, str) and targets == HELD_OUT:
        return tuple(_ids(reference.held_out))
    if isinstance(targets, str | os.PathLike):
        path = Path(targets).expanduser()
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"The test structures asked for are {HELD_OUT!r} or a text file with an id per line; {path} is "
                f"none: {error}"
            ) from error
        where = f" in {path}"
    else:
        lines, where = list(targets), ""
    wanted = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not wanted:
        raise ConfigError(f"No test structure is named{where}: give an id per line")
    unknown = sorted(set(wanted) - _records_among(reference.store, wanted))
    if unknown:
        raise ConfigError(
            f"{len(unknown):,} of {len(wanted):,} test structures{where} are no records of {reference.store.location}: "
            f"{_some(unknown)}"
        )
    return wanted


def with_missing(reading: ReadingReport, asked: Sequence[str], reference: Reference) -> ReadingReport:
    """The input and a candidate that could not be read for every test structure asked for of which none came.

    Only so are match rates shares of all test structures: a generator that gives up on half of them would
    otherwise be judged by the other half.

    Args:
        reading: what was read.
        asked: ids of records of the reference.
        reference: the reference.

    Raises:
        ConfigError: crystals are predictions of other test structures, or none is a prediction of any.
    """
    columns = reading.candidates.columns(["id", "given"])
    possible = [
        names_of_target(record_id, json.loads(given))
        for record_id, given in zip(columns.column("id").to_pylist(), columns.column("given").to_pylist())
    ]
    records = _records_among(reference.store, {name for names in possible for name in names})
    meant = [next((name for name in names if name in records), None) for names in possible]
    named, wanted = {name for name in meant if name is not None}, set(asked)
    if strangers := sorted(named - wanted):
        count = sum(name in set(strangers) for name in meant)
        raise ConfigError(
            f"{count:,} crystals are predictions of test structures that were not asked for ({_some(strangers)}): "
            "leave them out, or name these structures too"
        )
    if not named:
        raise ConfigError(
            f"No crystal is a prediction of one of the {len(asked):,} test structures asked for: give a column "
            f"{TARGET_COLUMN}, or ids such as {asked[0]}_0 for samples of {asked[0]}"
        )
    missing = [name for name in asked if name not in named]
    if not missing:
        return reading
    store = reading.candidates
    folder = open_folder(store.location)
    label = hashlib.blake2b("\n".join(missing).encode(), digest_size=16).hexdigest()
    parts = [
        write_part(
            folder, f"asked/{label}-{first // PART_SIZE:04d}.parquet", _failures(missing, first, len(store))
        )
        for first in range(0, len(missing), PART_SIZE)
    ]
    return replace(
        reading,
        candidates=CandidateStore(store.location, [*store.parts, *parts]),
        num_missing=len(missing),
    )


def _failures(missing: Sequence[str], first: int, start: int) -> list[Candidate]:
    return [
        Candidate(
            row=start + first + i,
            id=name,
            file="",
            unit_cell=None,
            encoded=None,
            problem=f"No crystal came for the test structure {name}, which was asked for.",
            given={TARGET_COLUMN: name},
        )
        for i, name in enumerate(missing[first : first + PART_SIZE])
    ]


def _ids(store: Store) -> Iterator[str]:
    for batch in store.iter_batches(["id"]):
        yield from batch.column(0).to_pylist()


def _records_among(store: Store, names: Iterable[str]) -> set[str]:
    """Those of the names that are ids of records, by one pass over the ids of the store."""
    wanted = set(names)
    return {record_id for record_id in _ids(store.whole()) if record_id in wanted}


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"
