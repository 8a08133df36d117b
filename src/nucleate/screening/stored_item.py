"""A candidate as the texts that stand on disk: cheap to move and to hash; who works on it makes the crystal of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from nucleate.crystal import Crystal
from nucleate.energetics.records import crystal_from_json
from nucleate.screening.records import key_of
from nucleate.screening.step import Step, StepItem


@dataclass(frozen=True)
class StoredItem:
    """What is known of a candidate that is a crystal.

    Attributes:
        line: its line of the pool (``screening.pool``), JSON.
        verdicts: JSON of the verdicts of the steps that it has passed, in order.
    """

    line: bytes
    verdicts: tuple[bytes, ...] = ()

    @cached_property
    def given(self) -> dict[str, Any]:
        """Its line of the pool as a dictionary."""
        return json.loads(self.line)

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """The verdicts as dictionaries."""
        return [json.loads(text) for text in self.verdicts]

    def __getstate__(self) -> dict[str, Any]:
        return {"line": self.line, "verdicts": self.verdicts}

    @property
    def fields(self) -> Mapping[str, Any] | None:
        """The crystal after the last step, as ``energetics.records.crystal_to_json`` writes it; None without one."""
        changed = [record["crystal"] for record in self.records if record["crystal"] is not None]
        return changed[-1] if changed else self.given["crystal"]

    @property
    def properties(self) -> dict[str, Any]:
        """What came along as ``given.NAME``, and the columns of the steps."""
        found: dict[str, Any] = {f"given.{name}": value for name, value in self.given["given"].items()}
        for record in self.records:
            found |= record["columns"]
        return found

    def key(self, step: Step, digest: str) -> str:
        """Key of the verdict of a step on it: that of ``records.result_key`` on its ``item``."""
        fields = self.fields
        assert fields is not None
        properties = self.properties if step.uses else {}
        return key_of(step, digest, fields, properties)

    def crystal(self) -> Crystal | None:
        """The crystal after the last step."""
        fields = self.fields
        return None if fields is None else crystal_from_json(fields)

    def item(self) -> StepItem:
        """It as the next step sees it.

        Raises:
            ValueError: it is no crystal.
        """
        crystal = self.crystal()
        if crystal is None:
            raise ValueError(f"{self.given['id']} is no crystal: {self.given['problem']}")
        return StepItem(self.given["id"], crystal, self.properties)
