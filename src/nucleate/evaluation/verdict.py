"""All that is said of one crystal on its own: every check with its number, in a line or as values, and its repair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from nucleate.crystal import space_group
from nucleate.errors import InvalidStructureError
from nucleate.evaluation.bond_statistics import shipped_statistics
from nucleate.evaluation.candidate import Candidate, make_candidate
from nucleate.evaluation.repair import Repair, repair
from nucleate.evaluation.settings import Settings
from nucleate.evaluation.symmetry import symmetry_row
from nucleate.evaluation.validity_checks import CHECKS, HISTOGRAM_COLUMNS, check_candidate, judged_bonds

REPAIRABLE = ("structurally_valid", "pair_distances_ok", "density_ok", "volume_ok")
"""Failed checks that a repair can mend."""


@dataclass(frozen=True)
class Verdict:
    """The checks of one crystal.

    Attributes:
        candidate: what was judged.
        row: columns of the families ``validity`` and ``symmetry``.
        repair: what became of the attempt to repair it; None where there was none.
        repair_problem: why no attempt could be made, or what the repaired crystal still fails; empty otherwise.
    """

    candidate: Candidate
    row: Mapping[str, Any]
    repair: Repair | None = None
    repair_problem: str = ""

    @property
    def ok(self) -> bool:
        """Whether the crystal (the repaired one where it was repaired) passes every check of ``CHECKS``."""
        return self.candidate.encoded is not None and all(self.row[name] for name in CHECKS)

    @property
    def problem(self) -> str:
        """What is wrong, in words; empty where nothing is."""
        return "; ".join(
            dict.fromkeys(filter(None, [self.candidate.problem, self.row.get("validity_problems")]))
        )

    def values(self) -> dict[str, Any]:
        """Everything as plain values for JSON."""
        crystal = self.candidate.crystal
        values: dict[str, Any] = {
            "id": self.candidate.id,
            "file": self.candidate.file,
            "ok": self.ok,
            "problem": self.problem,
            "formula": None if crystal is None else crystal.formula,
            "space_group_number": None if crystal is None else crystal.space_group_number,
            "volume_per_atom": None if crystal is None else crystal.volume_per_atom,
            "density": None if crystal is None else crystal.density,
            **{name: value for name, value in self.row.items() if name not in HISTOGRAM_COLUMNS},
        }
        if self.repair is not None or self.repair_problem:
            values["repair"] = self._repair_values()
        return values

    def _repair_values(self) -> dict[str, Any]:
        if self.repair is None:
            return {"outcome": "impossible", "reason": self.repair_problem}
        r = self.repair
        return {
            "outcome": r.outcome,
            "reason": r.reason or self.repair_problem,
            "moved": list(r.moved),
            "max_displacement": r.max_displacement,
            "mean_displacement": r.mean_displacement,
            "strain": r.strain,
            "volume_change": r.volume_change,
        }

    def line(self) -> str:
        """Everything in one line for people."""
        row, crystal = self.row, self.candidate.crystal
        if row.get("min_distance") is None:
            return "  ".join(filter(None, [self.candidate.id, f"| {self.problem}", self._repair_words()]))
        parts = [self.candidate.id]
        if crystal is not None:
            parts.append(f"{crystal.formula} {space_group(crystal.space_group_number).symbol}")
        parts.append(
            f"d {row['min_distance']:.3f} Å {row['min_distance_elements']}, "
            f"{_number(row['min_distance_ratio'], '.2f')} of least for {row['min_ratio_elements']}"
        )
        if crystal is not None:
            parts.append(f"ρ {crystal.density:.3f} g/cm³")
        parts += [
            f"V {_number(row['volume_spreads'], '+.1f')}σ",
            f"cell {row['shortest_vector']:.2f} Å, {row['elongation']:.1f}:1",
            f"charge {row['charge_class']}"
            + (f" {row['oxidation_states']}" if row["charge_class"].endswith("valence") else ""),
            f"SMACT {'yes' if row['compositionally_valid'] else 'no'} ({row['smact_reason']})",
            f"CN {row['coordination_mean']:.1f}"
            + (f", {row['num_isolated']} isolated" if row["num_isolated"] else ""),
            f"angle {_number(row['min_bond_angle'], '.0f')}°",
            f"GII {_number(row['instability_index'], '.2f')}",
            f"rare bonds {_share(row['rare_bonds'])}, CN {_share(row['rare_coordination'])}, "
            f"angles {_share(row['rare_angles'])}"
            + (f" (worst {row['rarest_bond']})" if row["rare_bonds"] else ""),
        ]
        if row.get("space_groups_moyopy") is not None:
            parts.append(_groups(row))
        if self.problem:
            parts.append(f"| {self.problem}")
        return "  ".join(filter(None, [*parts, self._repair_words()]))

    def _repair_words(self) -> str:
        if self.repair is None:
            return f"| not repaired: {self.repair_problem}" if self.repair_problem else ""
        if self.repair.outcome == "impossible":
            return f"| not repaired: {self.repair.reason}"
        if self.repair.outcome == "nothing to do":
            return ""
        rest = f"; it still fails: {self.repair_problem}" if self.repair_problem else ""
        return (
            f"| repaired: {', '.join(self.repair.moved)} (mean {self.repair.mean_displacement:.3f} Å){rest}"
        )


def _number(value: float | None, form: str) -> str:
    return "?" if value is None else format(value, form)


def _share(value: float | None) -> str:
    return "?" if value is None else f"{value:.0%}"


def _groups(row: Mapping[str, Any]) -> str:
    """Groups by tolerance, and by spglib where it disagrees."""
    found = [
        f"{n or '?'}" if n == m else f"{n or '?'} (spglib {m or '?'})"
        for n, m in zip(row["space_groups_moyopy"], row["space_groups_spglib"])
    ]
    text = f"groups {' '.join(found)} at {' '.join(f'{s:g}' for s in row['symprecs'])} Å"
    if row["space_group_asked"] is not None:
        text += f", asked {row['space_group_asked']} ({' '.join(row['asked_against_found'])})"
    return text


def judge(candidate: Candidate, *, settings: Settings | None = None) -> Verdict:
    """Every check of one crystal; bonds are compared with the statistics that come with the package.

    Args:
        candidate: the crystal, readable or not.
        settings: thresholds and tolerances; the defaults unless given.
    """
    settings = settings or Settings()
    row = check_candidate(candidate, settings)
    row = {**row, **judged_bonds(row, shipped_statistics()), **symmetry_row(candidate, settings.symprecs)}
    return Verdict(candidate, row)


def repaired(verdict: Verdict, *, settings: Settings | None = None) -> Verdict:
    """The verdict of the repaired crystal where one of ``REPAIRABLE`` had failed; the given one otherwise.

    The repaired crystal stands in the standard setting of its group; charges, moments and other values of its sites
    are not carried over.

    Args:
        verdict: of the crystal as given.
        settings: as for ``judge``.
    """
    candidate = verdict.candidate
    if candidate.unit_cell is None or all(verdict.row[name] for name in REPAIRABLE):
        return verdict
    if candidate.crystal is None:
        return replace(
            verdict, repair_problem=f"it is no crystal with a symmetry to keep: {candidate.problem}"
        )
    try:
        outcome = repair(candidate.crystal)
    except InvalidStructureError as error:
        return replace(verdict, repair_problem=str(error))
    if outcome.outcome != "repaired":
        return replace(verdict, repair=outcome)
    after = make_candidate(
        candidate.row,
        outcome.crystal.unit_cell("primitive"),
        id=candidate.id,
        file=candidate.file,
        given=candidate.given,
    )
    judged = judge(after, settings=settings)
    return replace(judged, repair=outcome, repair_problem=judged.problem)
