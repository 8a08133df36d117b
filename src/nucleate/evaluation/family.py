"""What a family of metrics is, and the families there are, imported late by name."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import pyarrow as pa

from nucleate.errors import ConfigError, NucleateError
from nucleate.evaluation.column import Column
from nucleate.evaluation.source_digest import source_digest

if TYPE_CHECKING:
    from nucleate.evaluation.candidate import Candidate
    from nucleate.evaluation.candidate_store import CandidateStore
    from nucleate.evaluation.context import Context
    from nucleate.evaluation.metric import Metric


__all__ = [
    "FAMILIES",
    "Column",
    "MetricFamily",
    "MissingExtraError",
    "check_names",
    "code_digest",
    "load_family",
    "missing_extra",
]


class MissingExtraError(NucleateError):
    """A family needs a library that is not installed; the message names the extra."""


@runtime_checkable
class MetricFamily(Protocol):
    """Metrics that belong together: one row per crystal first, averages after.

    ``rows`` runs on small chunks in any process and is resumed chunk by chunk: it must be a pure function of
    the candidates (but not of their ``row``: the same crystals elsewhere in a set keep their rows), the
    settings it ``uses`` and the reference where ``uses_reference``. ``across`` and ``summary`` run once, in the
    main process, after the rows of all chunks; families run in the order of ``FAMILIES``.

    Attributes:
        name: ``validity``, ``symmetry``, ...
        columns: what ``rows`` and ``across`` return, in the order of the table.
        uses: names of the settings that rows depend on, and ``seed`` where they are random.
        uses_across: names of the settings that ``across`` depends on beside those; it is computed again with
            another reference, seed or set in any case.
        uses_reference: whether rows depend on the reference.
        code: modules whose source decides the rows; when one changes they are computed again.
        chunk: candidates per chunk: small where a row takes seconds.
        scores_reference: whether the held-out sample of the reference can be scored with it.
    """

    name: str
    columns: tuple[Column, ...]
    uses: tuple[str, ...]
    uses_across: tuple[str, ...]
    uses_reference: bool
    code: tuple[str, ...]
    chunk: int
    scores_reference: bool

    def rows(self, candidates: Sequence[Candidate], context: Context) -> list[dict[str, Any]]:
        """One mapping of column to value per candidate, in order; missing columns are null.

        Candidates without ``unit_cell`` or ``encoded`` get a row too and count against the generator.
        """
        ...

    def across(
        self, candidates: CandidateStore, table: pa.Table, context: Context
    ) -> Mapping[str, Sequence[Any]]:
        """Columns that need the whole set (uniqueness, pairing with targets); empty if there are none.

        Args:
            candidates: all candidates, on disk.
            table: one row per candidate: the base columns and the rows of all families up to this one.
            context: what the evaluation is about.
        """
        ...

    def summary(self, table: pa.Table, context: Context) -> list[Metric]:
        """The averages. The same function scores the held-out sample (``context.subject`` says which).

        Args:
            table: one row per candidate, with the columns of this family and of those that ran before it.
            context: what the evaluation is about.
        """
        ...


FAMILIES: dict[str, str] = {
    "validity": "nucleate.evaluation.validity",
    "symmetry": "nucleate.evaluation.symmetry",
    "distribution": "nucleate.evaluation.distribution",
    "novelty": "nucleate.evaluation.novelty",
    "stability": "nucleate.evaluation.stability",
    "csp": "nucleate.evaluation.csp",
    "condition": "nucleate.evaluation.condition",
}
"""Module of each family, in the order in which they run. A module has a function ``family() -> MetricFamily``."""


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """The families asked for, each once, in the order in which they run.

    Raises:
        ConfigError: there is no family of a name, or none is named.
    """
    if not names:
        raise ConfigError(f"Name at least one family of metrics: {', '.join(FAMILIES)}")
    for name in names:
        if name not in FAMILIES:
            raise ConfigError(f"There is no family of metrics {name!r}; there are {', '.join(FAMILIES)}")
    return tuple(name for name in FAMILIES if name in names)


def load_family(name: str) -> MetricFamily:
    """The family of this name.

    Raises:
        ConfigError: there is no such family.
        MissingExtraError: a library it needs is not installed.
    """
    check_names([name])
    try:
        return importlib.import_module(FAMILIES[name]).family()
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "nucleate":
            raise
        raise missing_extra(name, error.name or str(error)) from error


def missing_extra(family: str, library: str) -> MissingExtraError:
    """The error of a family whose library is not installed, with the way out."""
    return MissingExtraError(
        f"The metrics {family!r} need {library}, which is not installed: pip install 'nucleate[evaluate]'"
    )


def code_digest(family: MetricFamily) -> str:
    """Hash of the source of everything a family says decides its rows, and of the names of its columns."""
    state = hashlib.blake2b(digest_size=16)
    for module in (type(family).__module__, *family.code):
        state.update(f"{module} {source_digest(module)}\n".encode())
    for column in family.columns:
        state.update(f"{column.name} {column.type}\n".encode())
    return state.hexdigest()
