"""The family ``symmetry``: which space groups there are, whether they were asked for, and whether they are usual.

Definitions, equations and pitfalls of every metric: ``docs/validity.md``.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from nucleate.data.schema import TOLERANCE_PREFIX
from nucleate.evaluation.column import Column
from nucleate.evaluation.metric import Metric
from nucleate.evaluation.space_group_distance import MEASURES, group_shares, resampled_spread
from nucleate.evaluation.statistics import normal_interval, proportion, small_sample_note, wilson_interval
from nucleate.evaluation.symmetry_checks import asked_against_found, find_symmetry, number_from

if TYPE_CHECKING:
    from nucleate.evaluation.candidate import Candidate
    from nucleate.evaluation.candidate_store import CandidateStore
    from nucleate.evaluation.context import Context
    from nucleate.evaluation.reference import Reference

ASKED_KEYS = ("space_group_asked", "asked_space_group", "spacegroup_asked")
"""Names under which the group that was asked for may come along with a crystal, the first that is there counts."""

_NUMBERS = pa.list_(pa.int16())

COLUMNS = (
    Column("space_group_asked", pa.int16(), "Space group that was asked for, where one was."),
    Column("symprecs", pa.list_(pa.float64()), "Tolerances of the searches, falling.", "Å"),
    Column("space_groups_moyopy", _NUMBERS, "Space group that moyopy finds at each tolerance."),
    Column("space_groups_spglib", _NUMBERS, "Space group that spglib finds at each tolerance."),
    Column("programs_agree", pa.bool_(), "Whether both find the same groups."),
    Column(
        "asked_against_found",
        pa.list_(pa.string()),
        "Group asked for against moyopy's at each tolerance: exact, higher, other, none.",
    ),
    Column("pseudo_symmetric", pa.bool_(), "Whether the loosest tolerance finds more than the tightest."),
    Column(
        "pseudo_symmetry_gain", pa.float64(), "Operations found at the loosest over those at the tightest."
    ),
    Column("template_known", pa.bool_(), "Whether the reference's training part has the prototype."),
)


@dataclass(frozen=True)
class SymmetryFamily:
    """Space groups asked and found, pseudo-symmetry, P1, distances of groups and novelty of templates."""

    name: str = "symmetry"
    columns: tuple[Column, ...] = COLUMNS
    uses: tuple[str, ...] = ("symprecs",)
    uses_across: tuple[str, ...] = ()
    uses_reference: bool = False
    code: tuple[str, ...] = ("nucleate.evaluation.symmetry_checks", "nucleate.crystal.encoding")
    chunk: int = 64
    scores_reference: bool = True

    def rows(self, candidates: Sequence[Candidate], context: Context) -> list[dict[str, Any]]:
        """Groups of each crystal at each tolerance."""
        return [symmetry_row(candidate, context.settings.symprecs) for candidate in candidates]

    def across(
        self, candidates: CandidateStore, table: pa.Table, context: Context
    ) -> Mapping[str, Sequence[Any]]:
        """Whether the reference has the prototype of each crystal."""
        keys = table.column("prototype_key").to_pylist()
        if context.reference is None:
            return {"template_known": [None] * len(keys)}
        known = reference_prototypes(context.reference)
        return {"template_known": [None if not key else bool(_hash(key) in known) for key in keys]}

    def summary(self, table: pa.Table, context: Context) -> list[Metric]:
        """Shares of kept, accidental and missing symmetry, and distances of the groups to the reference's."""
        return [
            *_searches(table, context),
            *_asked(table),
            *_templates(table, context),
            *_groups(table, context),
        ]


def symmetry_row(candidate: Candidate, symprecs: Sequence[float]) -> dict[str, Any]:
    """The columns of one crystal; only the group asked for where it could not be read."""
    asked = next((n for key in ASKED_KEYS if (n := number_from(candidate.given.get(key))) is not None), None)
    row: dict[str, Any] = {"space_group_asked": asked, "symprecs": sorted(set(symprecs), reverse=True)}
    # A cell that is no crystal (atoms on top of each other, no volume) is not handed to the programs.
    if candidate.unit_cell is None or candidate.encoded is None:
        return row
    found = find_symmetry(candidate.unit_cell, symprecs)
    return {
        **row,
        "space_groups_moyopy": [f.number for f in found.moyopy],
        "space_groups_spglib": [f.number for f in found.spglib],
        "programs_agree": found.agree,
        "asked_against_found": None
        if asked is None
        else [asked_against_found(asked, f.number) for f in found.moyopy],
        "pseudo_symmetric": found.is_pseudo_symmetric,
        "pseudo_symmetry_gain": found.gain if math.isfinite(found.gain) else None,
    }


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")


def reference_prototypes(reference: Reference) -> frozenset[int]:
    """Hashes of the prototype keys of the reference's training part; computed once, then cached."""

    def build() -> dict[str, np.ndarray]:
        hashes = {_hash(crystal.prototype_key) for crystal in reference.train.iter_crystals()}
        return {"hashes": np.array(sorted(hashes), dtype=np.uint64)}

    return frozenset(reference.cached("prototype_keys v1", build)["hashes"].tolist())


def reference_groups(reference: Reference, symprec: float) -> np.ndarray:
    """Space group of each crystal of the reference's training part at a tolerance, as the store says.

    Where the store was not built with this tolerance, the group of the encoding (its own tolerance, 0.01 Å unless
    it was built otherwise).
    """
    column = f"{TOLERANCE_PREFIX}{symprec:g}"
    names = next(iter(reference.train.iter_batches(None, 1))).column_names
    # Every store has the columns of three tolerances; only one built with them has values in them.
    stated = bool(reference.store.manifest.encoding.get("pseudo_symmetry"))
    chosen = column if stated and column in names else "space_group_number"

    def build() -> dict[str, np.ndarray]:
        parts = [
            np.array([n or 0 for n in batch.column(0).to_pylist()], dtype=np.int16)
            for batch in reference.train.iter_batches([chosen])
        ]
        return {"numbers": np.concatenate(parts)}

    return reference.cached(f"space_groups v1 {chosen}", build)["numbers"]


_UNREAD = "crystals that cannot be read or searched count against the generator"


def _tolerances(table: pa.Table) -> list[float]:
    return next((s for s in table.column("symprecs").to_pylist() if s), [])


def _at(values: Sequence[list[Any] | None], index: int) -> list[Any]:
    return [None if v is None else v[index] for v in values]


def _searches(table: pa.Table, context: Context) -> list[Metric]:
    found = table.column("space_groups_moyopy").to_pylist()
    metrics = []
    for index, symprec in enumerate(_tolerances(table)):
        flags = [number in (None, 1) for number in _at(found, index)]
        name = "p1_share" if index == 0 else f"p1_share_at_{symprec:g}"
        metrics.append(
            proportion(
                name,
                flags,
                protocol=f"space group P1 found by moyopy at symprec {symprec:g} Å; a failed search counts as P1",
                better="lower",
            )
        )
    metrics.append(
        proportion(
            "pseudo_symmetric",
            table.column("pseudo_symmetric").to_pylist(),
            protocol=f"more operations at symprec {max(_tolerances(table), default=0):g} Å than at "
            f"{min(_tolerances(table), default=0):g} Å, of crystals that could be searched",
            better="lower",
            column="pseudo_symmetric",
        )
    )
    metrics.append(
        proportion(
            "programs_agree",
            table.column("programs_agree").to_pylist(),
            protocol="moyopy and spglib find the same group at every tolerance, of crystals that could be searched",
            better="",
            column="programs_agree",
        )
    )
    return metrics


def _asked(table: pa.Table) -> list[Metric]:
    asked = table.column("space_group_asked").to_pylist()
    kept = table.column("asked_against_found").to_pylist()
    rows = [i for i, number in enumerate(asked) if number is not None]
    if not rows:
        return []
    metrics = []
    for index, symprec in enumerate(_tolerances(table)):
        outcome = _at([kept[i] for i in rows], index)
        suffix = f"_at_{symprec:g}"
        where = f"at symprec {symprec:g} Å, of crystals with a group asked for; {_UNREAD}"
        metrics += [
            proportion(
                f"symmetry_kept{suffix}",
                [o in ("exact", "higher") for o in outcome],
                protocol=f"group found is the one asked for or one with it as a subgroup, {where}",
            ),
            proportion(
                f"symmetry_exact{suffix}",
                [o == "exact" for o in outcome],
                protocol=f"group found is the one asked for or its mirror image, {where}",
            ),
            proportion(
                f"accidental_symmetry{suffix}",
                [o == "higher" for o in outcome],
                protocol=f"group found has the one asked for as a proper subgroup, {where}",
                better="lower",
            ),
        ]
    return metrics


def _templates(table: pa.Table, context: Context) -> list[Metric]:
    keys = table.column("prototype_key").to_pylist()
    present = [key for key in keys if key]
    metrics = [
        Metric(
            "template_diversity",
            len(set(present)) / len(present) if present else None,
            len(present),
            wilson_interval(len(set(present)), len(present)),
            "different prototypes (group, Wyckoff template, stoichiometry) per encoded crystal; falls with the size "
            "of the set; Wilson interval, as for the share of first ones of their kind",
            unit="share",
            better="",
            note=small_sample_note(len(present)),
        )
    ]
    if context.reference is not None:
        known = table.column("template_known").to_pylist()
        metrics.append(
            proportion(
                "template_novelty",
                [None if k is None else not k for k in known],
                protocol="prototype is not among those of the reference's training part, of encoded crystals",
                better="",
            )
        )
    return metrics


def _groups(table: pa.Table, context: Context) -> list[Metric]:
    if context.reference is None:
        return []
    symprec = next(iter(_tolerances(table)), None)
    if symprec is None:
        return []
    # Failed searches are P1, as in the published measures.
    numbers = np.array(
        [n or 1 for n in _at(table.column("space_groups_moyopy").to_pylist(), 0)], dtype=np.int64
    )
    of_reference = reference_groups(context.reference, symprec)
    shares, reference = group_shares(numbers), group_shares(of_reference)
    metrics = []
    for measure in MEASURES:
        value = measure.distance(shares, reference)
        spread = resampled_spread(
            numbers,
            reference,
            measure.distance,
            rng=context.rng("space groups", measure.name),
            resamples=context.settings.resamples,
        )
        metrics.append(
            Metric(
                measure.name,
                value if math.isfinite(value) else None,
                len(numbers),
                normal_interval(value, spread, low=0.0) if math.isfinite(value) else None,
                f"{measure.words}; moyopy at symprec {symprec:g} Å against {len(of_reference):,} crystals of the "
                "reference's training part; a failed search counts as P1; small sets are further away: compare "
                "equal sizes",
                better="lower",
                note=small_sample_note(len(numbers)),
            )
        )
    return metrics


def family() -> SymmetryFamily:
    """The family, for ``nucleate.evaluation.family.load_family``."""
    return SymmetryFamily()
