"""The family ``stability``: relaxed energies above the hull, stable and metastable shares, S.U.N.

Definitions, equations and pitfalls: ``docs/energetics.md``.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from nucleate.evaluation.column import Column
from nucleate.evaluation.stability_summary import FAILED, KNOWN, UNKNOWN, UNREADABLE, stability_metrics

if TYPE_CHECKING:
    from nucleate.crystal import Crystal
    from nucleate.data.store import Store
    from nucleate.energetics.cache import ResultCache
    from nucleate.energetics.hull import HullPlace, ReferenceHull, System
    from nucleate.energetics.potential import Potential
    from nucleate.energetics.relaxation import Relaxation, RelaxationSettings
    from nucleate.evaluation.candidate import Candidate
    from nucleate.evaluation.candidate_store import CandidateStore
    from nucleate.evaluation.context import Context

COLUMNS = (
    Column("stability_status", pa.string(), f"{KNOWN}, {UNKNOWN}, {FAILED} or {UNREADABLE}."),
    Column("relaxed", pa.bool_(), "Whether the relaxation converged."),
    Column("relaxation_reason", pa.string(), "'converged', or why the relaxation did not."),
    Column("relaxation_evaluations", pa.int64(), "Evaluations of the potential in the relaxation."),
    Column("energy_per_atom", pa.float64(), "Energy of the relaxed crystal.", "eV/atom"),
    Column("unrelaxed_energy_per_atom", pa.float64(), "Energy of the crystal as given.", "eV/atom"),
    Column("rmsd_to_relaxed", pa.float64(), "Root mean square displacement of its atoms.", "Å"),
    Column("relaxed_volume_ratio", pa.float64(), "Volume after over volume before relaxation."),
    Column("relaxed_space_group", pa.int64(), "Space group of the relaxed crystal at 0.01 Å."),
    Column("energy_above_hull", pa.float64(), "Above the hull of the potential's energies.", "eV/atom"),
    Column("formation_energy", pa.float64(), "Above the elements' references.", "eV/atom"),
    Column("decomposition", pa.string(), "Entries it would decompose into, with their shares of the atoms."),
    Column("hull_missing_elements", pa.string(), "Elements without a reference; empty as a rule."),
    Column("hull_coverage", pa.float64(), "Share of its subsystems of two or more elements with entries."),
    Column("hull_subsystems", pa.string(), "Covered and possible subsystems of 2, 3, ... elements: 3/3 1/1."),
    Column("hull_entries", pa.int64(), "Entries in its system, subsystems and elements."),
    Column("dft_energy_above_hull", pa.float64(), "As given with the crystal; never mixed in.", "eV/atom"),
)
_GIVEN_HULL = ("e_above_hull", "energy_above_hull", "dft_energy_above_hull", "ehull")
_ENERGETICS = "nucleate.energetics."
_CODE = tuple(
    _ENERGETICS + name
    for name in (
        "chgnet_potential",
        "ase_potential",
        "symmetric_coordinates",
        "stiffness",
        "quasi_newton",
        "relaxation",
        "batched_relaxation",
        "hull",
        "element_references",
        "reference_energies",
    )
)


@dataclass(frozen=True)
class StabilityFamily:
    """Energies above the hull after relaxation, and what is counted from them."""

    name: str = "stability"
    columns: tuple[Column, ...] = COLUMNS
    uses: tuple[str, ...] = ("potential", "relax_steps", "relax_fmax")
    uses_across: tuple[str, ...] = ()
    uses_reference: bool = True
    code: tuple[str, ...] = _CODE
    chunk: int = 16
    scores_reference: bool = True

    def rows(self, candidates: Sequence[Candidate], context: Context) -> list[dict[str, Any]]:
        """One row per candidate: relaxed together, then placed against the hull of their chemistry."""
        laboratory = _laboratory(context)
        rows: list[dict[str, Any]] = [
            {
                "stability_status": UNREADABLE,
                "relaxed": False,
                "relaxation_reason": candidate.problem,
                "dft_energy_above_hull": _given_hull(candidate.given),
            }
            for candidate in candidates
        ]
        crystals = {i: c.crystal for i, c in enumerate(candidates) if c.crystal is not None}
        unsupported = {i: laboratory.missing_elements(crystal) for i, crystal in crystals.items()}
        chosen = [i for i in crystals if not unsupported[i]]
        relaxations = laboratory.relax([crystals[i] for i in chosen], context)
        for i in crystals:
            if unsupported[i]:
                rows[i] |= {
                    "stability_status": UNKNOWN,
                    "relaxed": None,
                    "relaxation_reason": f"no reference for {unsupported[i]}",
                    "hull_missing_elements": unsupported[i],
                }
        for i, relaxation in zip(chosen, relaxations):
            rows[i] |= _relaxed_row(crystals[i], relaxation, laboratory.hull)
        return rows

    def across(
        self, candidates: CandidateStore, table: pa.Table, context: Context
    ) -> Mapping[str, Sequence[Any]]:
        """Nothing: every crystal is judged alone."""
        return {}

    def summary(self, table: pa.Table, context: Context) -> list[Metric]:
        """Shares of stable and metastable crystals, S.U.N. at each threshold, what failed and what is unknown."""
        return stability_metrics(table, context, _laboratory(context).protocol)


def _relaxed_row(crystal: Crystal, relaxation: Relaxation, hull: ReferenceHull) -> dict[str, Any]:
    from nucleate.energetics.relaxation import displacement_rms  # noqa: PLC0415  scipy loads with it

    row: dict[str, Any] = {
        "relaxed": relaxation.converged,
        "relaxation_reason": relaxation.reason,
        "relaxation_evaluations": relaxation.evaluations,
        "unrelaxed_energy_per_atom": _number(relaxation.initial_energy_per_atom),
    }
    if not relaxation.converged:
        return row | {"stability_status": FAILED}
    place = hull.place(relaxation.crystal.composition, relaxation.energy_per_atom)
    return row | {
        "stability_status": KNOWN if place.is_known else UNKNOWN,
        "energy_per_atom": relaxation.energy_per_atom,
        "rmsd_to_relaxed": displacement_rms(crystal, relaxation.crystal),
        "relaxed_volume_ratio": relaxation.volume_change,
        "relaxed_space_group": relaxation.space_group_found,
        **hull_columns(place),
    }


def hull_columns(place: HullPlace) -> dict[str, Any]:
    """Values of the columns that say where a crystal lies against the hull, and what the hull knows."""
    completeness = place.completeness
    return {
        "energy_above_hull": place.energy_above_hull if place.is_known else None,
        "formation_energy": place.formation_energy,
        "decomposition": "; ".join(f"{name} {share:.3f}" for name, share in place.decomposition),
        "hull_missing_elements": " ".join(completeness.missing_elements),
        "hull_coverage": completeness.covered,
        "hull_subsystems": " ".join(f"{have}/{of}" for have, of in completeness.subsystems),
        "hull_entries": completeness.num_entries,
    }


def _given_hull(given: Mapping[str, Any]) -> float | None:
    for name in _GIVEN_HULL:
        value = given.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    return None


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


# ---- what computes energies ------------------------------------------------------------------------------------


class Laboratory:
    """Potential, hull and caches of one evaluation; built once in a process, computing what is asked for.

    The hull is that of the reference's training part (all of it where nothing is held out) for both the set and the
    held-out sample, so that both are judged by the same hull, plus the elements' references.

    Args:
        context: settings and reference.
    """

    def __init__(self, context: Context) -> None:
        from nucleate.energetics.relaxation import RelaxationSettings  # noqa: PLC0415  scipy loads with it

        self.settings: RelaxationSettings = RelaxationSettings(
            fmax=context.settings.relax_fmax, max_evaluations=context.settings.relax_steps
        )
        self._name = context.settings.potential
        self._reference = context.reference
        self._kept: dict[Path, ResultCache] = {}
        self._folder = context.cache if context.reference is None else context.reference.cache

    @cached_property
    def potential(self) -> Potential:
        """The potential of the settings."""
        from nucleate.energetics.named_potentials import load_potential  # noqa: PLC0415  torch loads with it

        return load_potential(self._name)

    @cached_property
    def hull(self) -> ReferenceHull:
        """Hulls of the reference's training part and the elements."""
        from nucleate.energetics.cache import ResultCache  # noqa: PLC0415
        from nucleate.energetics.element_references import ElementReferences  # noqa: PLC0415
        from nucleate.energetics.hull import ReferenceHull  # noqa: PLC0415
        from nucleate.energetics.reference_energies import ComputedEntries, JoinedEntries  # noqa: PLC0415

        cache = ResultCache(self._folder / "energies")
        elements = ElementReferences(self.potential, cache=cache)
        if self._reference is None:
            return ReferenceHull(elements)
        records = ReferenceRecords(self._reference.train)
        computed = ComputedEntries(
            records.systems,
            records,
            elements=elements,
            potential=self.potential,
            settings=self.settings,
            cache=cache,
        )
        return ReferenceHull(JoinedEntries(elements, computed))

    def missing_elements(self, crystal: Crystal) -> str:
        """Symbols of the elements without a reference, before anything of the crystal is computed."""
        from nucleate.crystal.species import element_symbol  # noqa: PLC0415

        return " ".join(
            element_symbol(z) for z in crystal.composition if not self.hull.entries(frozenset((z,)))
        )

    def relax(self, crystals: Sequence[Crystal], context: Context) -> list[Relaxation]:
        """Relaxations, kept in the folder of the run."""
        from nucleate.energetics.batched_relaxation import relax  # noqa: PLC0415
        from nucleate.energetics.cache import ResultCache  # noqa: PLC0415

        if context.cache not in self._kept:
            self._kept[context.cache] = ResultCache(context.cache / "relaxations")
        return relax(crystals, self.potential, settings=self.settings, cache=self._kept[context.cache])

    @property
    def protocol(self) -> str:
        """What energies and hull are, for protocols."""
        from nucleate.energetics.reference_energies import WINDOW  # noqa: PLC0415

        reference = self._reference
        entries = "no reference: elements only" if reference is None else f"{len(reference.train):,} records"
        # By content: the same reference in another place is the same protocol.
        where = "" if reference is None else f" of the reference {reference.content_hash[:12]} not held out"
        return (
            f"relaxed inside its symmetry with {self.potential.identity} (corrections: {self.potential.corrections}) "
            f"to {self.settings.fmax:g} eV/Å in at most {self.settings.max_evaluations} evaluations; hull of the same "
            f"potential on {entries}{where} (relaxed within {WINDOW:g} eV/atom of the hull of unrelaxed energies) and "
            "element references"
        )


class ReferenceRecords:
    """Records of a store by chemical system: called with a system it gives (id, crystal) of each."""

    def __init__(self, store: Store) -> None:
        self._store = store
        places: dict[System, list[int]] = defaultdict(list)
        index = 0
        for batch in self._store.iter_batches(["atomic_numbers"]):
            for numbers in batch.column("atomic_numbers").to_pylist():
                places[frozenset(numbers)].append(index)
                index += 1
        self._places = dict(places)

    @property
    def systems(self) -> frozenset[System]:
        """Every chemical system with records."""
        return frozenset(self._places)

    def __call__(self, system: System) -> list[tuple[str, Crystal]]:
        """(id, crystal) of the records with exactly these elements."""
        records = (self._store[index] for index in self._places.get(system, ()))
        return [(record.id, record.crystal) for record in records]


_LABORATORIES: dict[tuple[Any, ...], Laboratory] = {}


def _laboratory(context: Context) -> Laboratory:
    """The laboratory of this process for a context: hulls and energies of one chunk serve the next."""
    reference = context.reference
    known = None if reference is None else (reference.content_hash, str(reference.cache), reference.seed)
    settings = context.settings
    key = (known, str(context.cache) if known is None else "", settings.digest(StabilityFamily().uses))
    if key not in _LABORATORIES:
        _LABORATORIES.clear()  # one at a time: it holds a potential and many phase diagrams
        _LABORATORIES[key] = Laboratory(context)
    return _LABORATORIES[key]


def family() -> StabilityFamily:
    """The family, for ``nucleate.evaluation.family.load_family``."""
    return StabilityFamily()
