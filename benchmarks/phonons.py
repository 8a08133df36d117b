"""Phonons of Si, NaCl, MgO and GaAs: against phonopy and ASE by hand, and against measured frequencies.

    python benchmarks/phonons.py --potential chgnet --min-length 10

For each crystal, relaxed with the potential: the largest difference between the frequencies of
``nucleate.screening.phonons`` and those of a direct script (phonopy on the conventional cell, forces from ASE's own
calculator one supercell after the other) at all q points commensurate with the supercell and along the band path, and
the error of the potential against measured frequencies. Without Born charges there is no splitting of longitudinal and
transverse optical modes at Gamma, so only transverse ones are compared there.

Measured, rounded to 0.1 THz: Si from Nilsson and Nelin, Physical Review B 6, 3777 (1972); GaAs from Strauch and
Dorner, Journal of Physics: Condensed Matter 2, 1457 (1990); MgO from Jasperse et al., Physical Review 146, 526 (1966);
NaCl from Raunio, Almqvist and Stedman, Physical Review 178, 1496 (1969).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms

from nucleate.crystal import Crystal, encode
from nucleate.crystal.convert import unit_cell_from_ase
from nucleate.energetics import RelaxationSettings, load_potential, relax
from nucleate.screening.force_constants import frequencies
from nucleate.screening.phonon_bands import band_structure
from nucleate.screening.phonons import PhononSettings, commensurate_points, phonons
from nucleate.screening.supercells import SupercellChoice

CRYSTALS = {
    "Si": lambda: bulk("Si", cubic=True, a=5.43),
    "NaCl": lambda: bulk("NaCl", "rocksalt", a=5.64, cubic=True),
    "MgO": lambda: bulk("MgO", "rocksalt", a=4.21, cubic=True),
    "GaAs": lambda: bulk("GaAs", "zincblende", a=5.65, cubic=True),
}
GAMMA, X, L = (0.0, 0.0, 0.0), (0.5, 0.0, 0.5), (0.5, 0.5, 0.5)
# branches are counted from the lowest at each q point
MEASURED: dict[str, list[tuple[str, tuple[float, float, float], int, float]]] = {
    "Si": [
        ("optical Gamma", GAMMA, 3, 15.5),
        ("TA X", X, 0, 4.5),
        ("LA X", X, 2, 12.3),
        ("TO X", X, 4, 13.9),
        ("TA L", L, 0, 3.4),
        ("LA L", L, 2, 11.4),
        ("LO L", L, 3, 12.6),
        ("TO L", L, 4, 14.7),
    ],
    "GaAs": [
        ("TO Gamma", GAMMA, 3, 8.0),
        ("TA X", X, 0, 2.4),
        ("LA X", X, 2, 6.8),
        ("LO X", X, 3, 7.2),
        ("TO X", X, 4, 7.6),
        ("TA L", L, 0, 1.9),
        ("LA L", L, 2, 6.3),
        ("LO L", L, 3, 7.2),
        ("TO L", L, 4, 7.8),
    ],
    "MgO": [("TO Gamma", GAMMA, 3, 12.0)],
    "NaCl": [("TO Gamma", GAMMA, 3, 4.9)],
}


def calculator_of(name: str) -> Calculator:
    """ASE's own calculator of the same potential."""
    if name == "chgnet":
        from chgnet.model import CHGNetCalculator

        with contextlib.redirect_stdout(io.StringIO()):
            return CHGNetCalculator(use_device="cpu")
    return load_potential(name)._calculator  # type: ignore[attr-defined]


def direct(crystal: Crystal, supercell: SupercellChoice, calculator: Calculator, distance: float) -> Phonopy:
    """The script by hand, in the same supercell."""
    atoms = crystal.to_atoms(supercell.kind)
    phonopy = Phonopy(
        PhonopyAtoms(
            symbols=list(atoms.symbols), cell=atoms.cell[:], scaled_positions=atoms.get_scaled_positions()
        ),
        supercell_matrix=np.diag(supercell.repeats),
        primitive_matrix=crystal.group.primitive_basis if supercell.kind == "conventional" else np.eye(3),
    )
    phonopy.generate_displacements(distance=distance)
    forces = []
    for cell in phonopy.supercells_with_displacements:
        moved = Atoms(cell.symbols, cell=cell.cell, positions=cell.positions, pbc=True)
        moved.calc = calculator
        forces.append(moved.get_forces())
    phonopy.forces = np.array(forces)
    phonopy.produce_force_constants()
    phonopy.symmetrize_force_constants()
    return phonopy


def measure(name: str, potential_name: str, settings: PhononSettings) -> dict[str, Any]:
    """Differences of one crystal."""
    potential = load_potential(potential_name)
    start = encode(unit_cell_from_ase(CRYSTALS[name]())).crystal
    relaxation = relax([start], potential, settings=RelaxationSettings(fmax=0.002))[0]
    crystal = relaxation.crystal
    began = time.process_time()
    found = phonons(crystal, potential, settings)
    ours = time.process_time() - began
    assert found.supercell is not None
    assert found.phonopy is not None
    began = time.process_time()
    by_hand = direct(crystal, found.supercell, calculator_of(potential_name), settings.displacement)
    theirs = time.process_time() - began
    points = np.concatenate([commensurate_points(found.phonopy), band_structure(found.phonopy).qpoints])
    difference = np.abs(frequencies(found.phonopy, points) - frequencies(by_hand, points))
    measured = []
    for label, qpoint, branch, value in MEASURED[name]:
        frequency = float(frequencies(found.phonopy, np.array([qpoint]))[0, branch])
        measured.append(
            {
                "mode": label,
                "frequency": round(frequency, 3),
                "measured": value,
                "error": round(frequency - value, 2),
            }
        )
    return {
        "crystal": name,
        "lattice_constant": round(float(crystal.lattice[0, 0]), 4),
        "relaxation": relaxation.reason,
        "supercell": f"{' '.join(map(str, found.supercell.repeats))} {found.supercell.kind}",
        "supercell_atoms": found.supercell.num_atoms,
        "evaluations": found.evaluations,
        "q_points": len(points),
        "largest_difference_thz": float(difference.max()),
        "acoustic_residual_thz": round(found.acoustic_residual, 4),
        "stable": found.stable,
        "seconds_ours": round(ours, 2),
        "seconds_by_hand": round(theirs, 2),
        "modes": measured,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--potential", default="chgnet")
    parser.add_argument("--min-length", type=float, default=10.0)
    parser.add_argument("--displacement", type=float, default=0.05)
    parser.add_argument("--out", type=Path, help="JSON of all results")
    arguments = parser.parse_args()
    settings = PhononSettings(min_length=arguments.min_length, displacement=arguments.displacement)
    results = []
    for name in CRYSTALS:
        result = measure(name, arguments.potential, settings)
        results.append(result)
        print(
            f"{name:5} a {result['lattice_constant']} Å, supercell {result['supercell']} ({result['supercell_atoms']} "
            f"atoms), largest difference {result['largest_difference_thz']:.2e} THz at {result['q_points']} q points, "
            f"stable {result['stable']}, {result['seconds_ours']} s against {result['seconds_by_hand']} s",
            flush=True,
        )
        for mode in result["modes"]:
            share = 100 * mode["error"] / mode["measured"]
            print(
                f"      {mode['mode']:14} {mode['frequency']:7.2f} THz, measured {mode['measured']:5.1f}, "
                f"{mode['error']:+.2f} ({share:+.0f} %)"
            )
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
