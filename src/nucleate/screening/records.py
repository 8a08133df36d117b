"""Verdicts as JSON and as keys: exact to the last bit, so that a resumed run is the run."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from nucleate.crystal import Crystal
from nucleate.energetics.records import crystal_digest, crystal_from_json, crystal_to_json
from nucleate.screening.step import Step, StepItem, StepResult


def result_key(step: Step, digest: str, item: StepItem) -> str:
    """Key of a verdict: hash of the step's digest, the crystal's content and the properties the step uses."""
    return key_of(step, digest, crystal_to_json(item.crystal), item.properties)


def key_of(step: Step, digest: str, fields: Mapping[str, Any], properties: Mapping[str, Any]) -> str:
    """``result_key`` of a crystal that stands as JSON, which need not be made for it.

    Args:
        step: the step.
        digest: its ``digest()``.
        fields: of the crystal, as ``crystal_to_json`` writes them; free coordinates may stand in one list.
        properties: as in ``StepItem``.
    """
    free = fields["free_coords"]
    if free and isinstance(free[0], list):
        free = [x for row in free for x in row]
    crystal = [
        fields["space_group_number"],
        fields["wyckoff_indices"],
        fields["atomic_numbers"],
        [x + 0.0 for x in fields["lattice_params"]],  # -0 as 0
        [x + 0.0 for x in free],
    ]
    used = {name: plain(properties.get(name)) for name in step.uses}
    # Python writes a float so that no other float is written alike.
    text = json.dumps([digest, crystal, used], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def result_to_json(result: StepResult, given: Crystal) -> dict[str, Any]:
    """All of a verdict but the content of its files; a crystal that did not change is not repeated."""
    changed = result.crystal is not given and crystal_digest(result.crystal) != crystal_digest(given)
    return {
        "status": result.status,
        "reason": result.reason,
        "columns": {name: plain(value) for name, value in result.columns.items()},
        "crystal": crystal_to_json(result.crystal) if changed else None,
        "files": sorted(file_name(name) for name in result.files),
    }


def crystal_of_record(record: Mapping[str, Any], given: Crystal) -> Crystal:
    """The crystal that goes on after the step of a record."""
    return given if record["crystal"] is None else crystal_from_json(record["crystal"])


def plain(value: Any) -> Any:
    """A value as JSON has it: numpy's numbers as Python's, and null for what is not finite."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def file_name(name: str) -> str:
    """A relative name of an artefact.

    Raises:
        ValueError: the name leads out of the candidate's folder.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts:
        raise ValueError(f"{name!r} is no name of a file inside a folder")
    return str(path)
