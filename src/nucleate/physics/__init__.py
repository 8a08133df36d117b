"""Known physics as pure functions of elements, compositions and cells: numpy only, tables on first use."""

from __future__ import annotations

from nucleate.physics.charge import (
    OxidationAssignment,
    OxidationStates,
    assign_oxidation_states,
    is_charge_neutral,
)
from nucleate.physics.composition import composition_counts
from nucleate.physics.density import DensityCheck, check_density, density
from nucleate.physics.distances import (
    DistanceViolations,
    distance_violations,
    minimum_distance,
    minimum_distance_matrix,
)
from nucleate.physics.elements import (
    FEATURE_NAMES,
    NUM_ELEMENTS,
    atomic_mass,
    atomic_number,
    element_features,
    element_gaps,
    element_symbol,
    element_values,
    ionic_radius,
    is_metal,
    known_mask,
    oxidation_states,
)
from nucleate.physics.neighbours import NeighbourList, neighbours_within
from nucleate.physics.volume import VolumeEstimate, VolumeEstimates, volume_per_atom, volumes_per_atom

__all__ = [
    "FEATURE_NAMES",
    "NUM_ELEMENTS",
    "DensityCheck",
    "DistanceViolations",
    "NeighbourList",
    "OxidationAssignment",
    "OxidationStates",
    "VolumeEstimate",
    "VolumeEstimates",
    "assign_oxidation_states",
    "atomic_mass",
    "atomic_number",
    "check_density",
    "composition_counts",
    "density",
    "distance_violations",
    "element_features",
    "element_gaps",
    "element_symbol",
    "element_values",
    "ionic_radius",
    "is_charge_neutral",
    "is_metal",
    "known_mask",
    "minimum_distance",
    "minimum_distance_matrix",
    "neighbours_within",
    "oxidation_states",
    "volume_per_atom",
    "volumes_per_atom",
]
