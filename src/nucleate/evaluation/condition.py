"""The family ``condition``: whether crystals have the composition that was asked for.

Reads what came along with each crystal (``formula_asked``, ``chemical_system_asked``, ``elements_asked``,
``num_atoms_asked``); the space group that was asked for is judged by the family ``symmetry``, properties by
``nucleate.evaluation.property_targets``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from nucleate.errors import ConfigError
from nucleate.evaluation.column import Column
from nucleate.evaluation.conditional import composition_obeys
from nucleate.evaluation.metric import Metric
from nucleate.evaluation.statistics import proportion

if TYPE_CHECKING:
    from nucleate.evaluation.candidate import Candidate
    from nucleate.evaluation.candidate_store import CandidateStore
    from nucleate.evaluation.context import Context

_WORDS = {
    "formula": "reduced formula equal to the one asked for",
    "chemical_system": "exactly the elements asked for",
    "elements": "no elements but those allowed",
    "num_atoms": "atoms per primitive cell as asked for, or in the range",
}


@dataclass(frozen=True)
class ConditionFamily:
    """Shares of crystals that obey what was asked of their composition; nothing where nothing was asked."""

    name: str = "condition"
    columns: tuple[Column, ...] = (
        *(Column(f"{name}_obeyed", pa.bool_(), f"Has the {words}.") for name, words in _WORDS.items()),
        Column("condition_obeyed", pa.bool_(), "All of them; null where nothing was asked."),
        Column("condition_problem", pa.string(), "Why a condition that came along cannot be read."),
    )
    uses: tuple[str, ...] = ()
    uses_across: tuple[str, ...] = ()
    uses_reference: bool = False
    code: tuple[str, ...] = ("nucleate.evaluation.conditional",)
    chunk: int = 256
    scores_reference: bool = False

    def rows(self, candidates: Sequence[Candidate], context: Context) -> list[dict[str, Any]]:
        """Answers for each kind of condition; a crystal that did not come obeys none."""
        return [_row(candidate) for candidate in candidates]

    def across(
        self, candidates: CandidateStore, table: pa.Table, context: Context
    ) -> Mapping[str, Sequence[Any]]:
        """Nothing: each crystal is judged alone."""
        return {}

    def summary(self, table: pa.Table, context: Context) -> list[Metric]:
        """Share of crystals that obey, of those something was asked of."""
        metrics = []
        for name, words in {**_WORDS, "condition": "everything that was asked of the composition"}.items():
            column = f"{name}_obeyed"
            answers = table.column(column).to_pylist()
            if any(answer is not None for answer in answers):
                protocol = f"{words}; crystals that cannot be read count as failures"
                metrics.append(proportion(column, answers, protocol=protocol, column=column))
        return metrics


def _row(candidate: Candidate) -> dict[str, Any]:
    try:
        answers = composition_obeys(candidate.crystal, candidate.given)
    except ConfigError as error:
        return {"condition_problem": str(error)}
    known = [answer for answer in answers.values() if answer is not None]
    return {
        **{f"{name}_obeyed": answer for name, answer in answers.items()},
        "condition_obeyed": all(known) if known else None,
    }


def family() -> ConditionFamily:
    """The family, for ``nucleate.evaluation.family.load_family``."""
    return ConditionFamily()
