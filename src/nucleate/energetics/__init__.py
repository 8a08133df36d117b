"""Energies of crystals from interatomic potentials: calculators, relaxation inside the symmetry, hulls, cache."""

from __future__ import annotations

from typing import Any

from nucleate.late import late_name

_LATE = {
    "CHGNetPotential": "chgnet_potential",
    "ComputedEntries": "reference_energies",
    "ElementReferences": "element_references",
    "ASEPotential": "ase_potential",
    "Evaluation": "potential",
    "FixedEntries": "hull",
    "HullPlace": "hull",
    "JoinedEntries": "reference_energies",
    "Potential": "potential",
    "ReferenceEntry": "hull",
    "ReferenceHull": "hull",
    "Relaxation": "relaxation",
    "RelaxationSettings": "relaxation",
    "ResultCache": "cache",
    "TorchSimPotential": "torch_sim_potential",
    "evaluate_each": "potential",
    "load_potential": "named_potentials",
    "relax": "batched_relaxation",
    "relax_stream": "batched_relaxation",
    "single_points": "reference_energies",
}

__all__ = sorted(_LATE)


def __getattr__(name: str) -> Any:
    """Loads torch, scipy and the rest only when something of it is used."""
    return late_name(__name__, _LATE, name)
