"""Inputs of DFT programs for a crystal: what is asked for, k points, magnetic moments, and the files themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import Any

import numpy as np

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.species import element_symbol
from nucleate.errors import ConfigError
from nucleate.shapes import Float

CODES: Mapping[str, str] = MappingProxyType(
    {
        "vasp": "nucleate.screening.dft_vasp",
        "espresso": "nucleate.screening.dft_espresso",
        "cp2k": "nucleate.screening.dft_cp2k",
        "gpaw": "nucleate.screening.dft_gpaw",
    }
)
"""Home of each program's inputs: a module with ``write_inputs(crystal, settings) -> dict[str, bytes]``."""

TASKS = ("relax", "scf", "bands")

FUNCTIONALS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "pbe": {"gpaw": "PBE", "cp2k": "PBE"},
        "lda": {"gpaw": "LDA", "cp2k": "PADE"},
    }
)
"""Exchange and correlation by name, as GPAW and CP2K call it."""

ORDINARY_MOMENT = 0.6
"""Initial moment (μB) of atoms that are not expected to be magnetic, as in pymatgen's sets."""


@dataclass(frozen=True)
class DFTSettings:
    """What a DFT calculation is asked for; every field decides numbers of the inputs.

    Attributes:
        functional: ``pbe`` or ``lda``; VASP's sets bring their own.
        k_spacing: largest distance between k points of the Gamma-centred mesh, 1/Å with the factor 2 pi.
        band_points: k points along the path of a band structure.
        cutoff: energy of the plane waves, eV; 0 takes what the pseudopotentials suggest (Quantum ESPRESSO) or
            ``DEFAULT_CUTOFF``. CP2K's grid takes ``4 cutoff`` or 600 Ry.
        smearing: width of the occupations, eV.
        fmax: largest force at the end of a relaxation, eV/Å.
        max_pressure: largest pressure at the end of a relaxation, GPa.
        steps: most steps of a relaxation.
        pseudopotentials: folder of UPF files for Quantum ESPRESSO.
        gpaw_setups: folder of GPAW's setups; empty for ``GPAW_SETUP_PATH`` or Debian's folder.
        cp2k_data: CP2K's data folder, in which elements are looked up; empty to leave that to CP2K.
        vasp_set: pymatgen's set for VASP's relaxation: ``MPRelaxSet``, ``MPScanRelaxSet`` or ``MP24RelaxSet``.
        magnetic: ``auto`` starts with moments on elements that often carry them, ``none`` without spin.
    """

    functional: str = "pbe"
    k_spacing: float = 0.2
    band_points: int = 60
    cutoff: float = 0.0
    smearing: float = 0.1
    fmax: float = 0.01
    max_pressure: float = 0.05
    steps: int = 100
    pseudopotentials: str = ""
    gpaw_setups: str = ""
    cp2k_data: str = ""
    vasp_set: str = "MPRelaxSet"
    magnetic: str = "auto"

    def __post_init__(self) -> None:
        if self.functional not in FUNCTIONALS:
            raise ConfigError(f"functionals are {', '.join(FUNCTIONALS)}, got {self.functional!r}")
        if self.magnetic not in ("auto", "none"):
            raise ConfigError(f"magnetic is auto or none, got {self.magnetic!r}")
        for name in ("k_spacing", "band_points", "smearing", "fmax", "max_pressure", "steps"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"{name} of a DFT calculation must be positive, got {value}")
        if not (self.cutoff >= 0 and math.isfinite(self.cutoff)):
            raise ConfigError(f"a cut-off is an energy in eV, or 0 for the usual one, got {self.cutoff}")


@dataclass(frozen=True, eq=False)
class DFTInputs:
    """Input files of one program for one crystal.

    Attributes:
        code: ``vasp``, ``espresso``, ``cp2k`` or ``gpaw``.
        files: content by relative name, the same bytes for the same crystal and settings.
        k_mesh: divisions of the mesh.
        moments: initial magnetic moment of each atom of the primitive cell, μB.
    """

    code: str
    files: Mapping[str, bytes]
    k_mesh: tuple[int, int, int]
    moments: tuple[float, ...] = field(default=())


def dft_inputs(crystal: Crystal, code: str, settings: DFTSettings | None = None) -> DFTInputs:
    """Complete inputs of a program for the primitive cell of a crystal: relaxation, SCF and band structure.

    Nothing is downloaded and no pseudopotential is copied; see the module of each program.

    Args:
        crystal: the crystal.
        code: one of ``CODES``.
        settings: what is asked for.

    Raises:
        ConfigError: no such program.
        DFTError: pseudopotentials are missing; the message names all of them.
    """
    settings = settings or DFTSettings()
    if code not in CODES:
        raise ConfigError(f"there are inputs for {', '.join(CODES)}, not for {code!r}")
    module: Any = import_module(CODES[code])
    return DFTInputs(
        code,
        MappingProxyType(dict(sorted(module.write_inputs(crystal, settings).items()))),
        k_mesh(crystal.primitive_lattice, settings.k_spacing),
        tuple(magnetic_moments(crystal, settings)),
    )


def k_mesh(lattice: Float[np.ndarray, "3 3"], spacing: float) -> tuple[int, int, int]:
    """Divisions ``n_i = ceil(|b_i| / spacing)`` of a Gamma-centred mesh, b_i with the factor 2 pi.

    Args:
        lattice: rows in Å.
        spacing: largest distance between neighbouring points, 1/Å.
    """
    lengths = 2 * np.pi * np.linalg.norm(np.linalg.inv(lattice), axis=0)
    a, b, c = (max(1, math.ceil(length / spacing - 1e-8)) for length in lengths)
    return a, b, c


@cache
def moment_table() -> Mapping[str, float]:
    """Initial moment (μB) by element symbol: pymatgen's ``MPRelaxSet``, lanthanides as their common ions."""
    from pymatgen.io.vasp.sets import MPRelaxSet  # noqa: PLC0415  heavy

    table: dict[str, float] = {}
    for name, value in MPRelaxSet.CONFIG["INCAR"]["MAGMOM"].items():
        symbol = name.rstrip("+0123456789")
        if name == symbol or symbol not in MPRelaxSet.CONFIG["INCAR"]["MAGMOM"]:
            table[symbol] = max(float(value), table.get(symbol, 0.0))
    return MappingProxyType(table)


def magnetic_moments(crystal: Crystal, settings: DFTSettings) -> list[float]:
    """Initial moment of each atom of the primitive cell, μB: ferromagnetic high spin, all zero where none is expected.

    With ``magnetic = "none"``, and in a crystal without an element whose moment in ``moment_table`` is at least 1, all
    are zero and the calculation goes without spin.
    """
    symbols = [element_symbol(int(z)) for z in crystal.unit_cell("primitive").atomic_numbers]
    table = moment_table()
    if settings.magnetic == "none" or not any(table.get(symbol, 0.0) >= 1 for symbol in symbols):
        return [0.0] * len(symbols)
    return [table.get(symbol, ORDINARY_MOMENT) for symbol in symbols]


def band_k_points(crystal: Crystal, settings: DFTSettings) -> tuple[Float[np.ndarray, "k 3"], str]:
    """(k points along the standard path as fractions of the primitive reciprocal cell, the path in words)."""
    from ase.cell import Cell  # noqa: PLC0415  heavy

    path = Cell(crystal.primitive_lattice).bandpath(npoints=settings.band_points)
    return np.array(path.kpts, dtype=np.float64), str(path.path)
