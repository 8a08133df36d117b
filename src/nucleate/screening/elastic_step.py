"""The step ``elastic``: crystals that a homogeneous strain takes apart leave, the others get their moduli."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from nucleate.crystal import Crystal
from nucleate.energetics.batched_relaxation import relax
from nucleate.energetics.relaxation import ALGORITHM, RelaxationSettings
from nucleate.errors import ConfigError
from nucleate.evaluation.column import Column
from nucleate.screening.elasticity import Elasticity, ElasticSettings, elasticity
from nucleate.screening.phonon_step import at_rest
from nucleate.screening.potentials import shared_potential
from nucleate.screening.step import Resources, StepResult, Value, settings_digest

VERSION = f"elastic-1 {ALGORITHM}"

COLUMNS = (
    Column("elastic_stable", pa.bool_(), "Whether Born's conditions hold and the ions sit in a minimum."),
    Column("elastic_lowest_eigenvalue", pa.float64(), "Of the elastic tensor in Kelvin notation.", "GPa"),
    Column("bulk_modulus", pa.float64(), "Voigt-Reuss-Hill average.", "GPa"),
    Column("shear_modulus", pa.float64(), "Voigt-Reuss-Hill average.", "GPa"),
    Column("young_modulus", pa.float64(), "From both.", "GPa"),
    Column("poisson_ratio", pa.float64(), "From both."),
    Column("elastic_anisotropy", pa.float64(), "Universal anisotropy, 0 for an isotropic crystal."),
    Column(
        "elastic_tensor",
        pa.string(),
        "Upper triangle C11, C12, ... C66 of the Voigt matrix in the standard frame (z along c, y along c x a).",
        "GPa",
    ),
    Column("elastic_residual_stress", pa.float64(), "Stress left in the relaxed crystal.", "GPa"),
    Column("elastic_asymmetry", pa.float64(), "What averaging over the point group changed.", "GPa"),
    Column("elastic_evaluations", pa.int64(), "Strained and displaced cells that were evaluated."),
)


@dataclass(frozen=True)
class Settings:
    """Settings of the step ``elastic``.

    Attributes:
        strain: size of the strains.
        displacement: length of the displacements of single atoms, Å.
        tolerance: an eigenvalue counts as positive above this, GPa.
        fmax: the crystal is relaxed to this force (eV/Å) inside its symmetry first; 0 takes it as it is.
    """

    strain: float = 0.004
    displacement: float = 0.01
    tolerance: float = 0.5
    fmax: float = 0.005

    def __post_init__(self) -> None:
        if not self.fmax >= 0:
            raise ConfigError(f"elastic.fmax must be zero or a force in eV/Å, got {self.fmax}")
        self.elasticity()

    def elasticity(self) -> ElasticSettings:
        """What the elastic constants are asked for."""
        return ElasticSettings(strain=self.strain, displacement=self.displacement, tolerance=self.tolerance)


@dataclass(frozen=True)
class ElasticStep:
    """Judges crystals by their elastic constants; see ``Settings``. ``elastic.json`` holds the whole tensor."""

    settings: Settings
    resources: Resources
    name: str = "elastic"
    columns: tuple[Column, ...] = COLUMNS
    uses: tuple[str, ...] = ()

    def digest(self) -> str:
        """Hash over algorithm, settings and potential."""
        identity = shared_potential(self.resources.potential, self.resources.device).identity
        return settings_digest(self.name, VERSION, asdict(self.settings), identity)

    def run(self, candidate_id: str, crystal: Crystal, properties: Mapping[str, Any]) -> StepResult:
        """The verdict on one crystal."""
        potential = shared_potential(self.resources.potential, self.resources.device)
        if self.settings.fmax:
            relaxation = relax([crystal], potential, settings=RelaxationSettings(fmax=self.settings.fmax))[0]
            if not at_rest(relaxation):
                reason = f"not at rest before the elastic constants: {relaxation.reason}"
                return StepResult(crystal, "failed", reason=reason)
            crystal = relaxation.crystal
        found = elasticity(crystal, potential, self.settings.elasticity())
        columns = elastic_columns(found)
        record = {
            "tensor_gpa": found.tensor.tolist(),
            "clamped_ion_tensor_gpa": found.clamped.tolist(),
            "frame": "z along c, y along c x a, x = y x z of the conventional cell in the standard setting",
            "voigt_order": "xx yy zz yz xz xy",
            "violated": [condition.text for condition in found.conditions],
        }
        files = {"elastic.json": (json.dumps(record, indent=1) + "\n").encode()}
        if not found.stable:
            return StepResult(crystal, "left", columns, found.reason, files)
        return StepResult(crystal, "passed", columns, files=files)


def elastic_columns(found: Elasticity) -> dict[str, Value]:
    """The columns of the step for one crystal."""
    upper = found.tensor[np.triu_indices(6)]
    columns: dict[str, Value] = {
        "elastic_stable": found.stable,
        "elastic_lowest_eigenvalue": found.lowest_eigenvalue,
        "elastic_tensor": " ".join(f"{x:.3f}" for x in upper),
        "elastic_residual_stress": found.residual_stress,
        "elastic_asymmetry": found.asymmetry,
        "elastic_evaluations": found.evaluations,
    }
    if found.moduli is not None:
        columns |= {
            "bulk_modulus": found.moduli.bulk,
            "shear_modulus": found.moduli.shear,
            "young_modulus": found.moduli.young,
            "poisson_ratio": found.moduli.poisson,
            "elastic_anisotropy": found.moduli.anisotropy,
        }
    return columns


def make_step(settings: Settings, resources: Resources) -> ElasticStep:
    """The step ``elastic``."""
    return ElasticStep(settings, resources)
