"""Runs one task of GPAW from a file of plain data: ``python gpaw_program.py TASK.json RESULT.json``.

It runs in the interpreter that has GPAW (20 or later, with any ASE that fits it), which need not have anything else:
only json, numpy, ase and gpaw are imported, and only when it runs.
"""

# mypy: ignore-errors
# Its libraries are those of the other interpreter, in several versions.

import json
import sys


def main(task_file, result_file):
    """Reads the task, runs it and writes the result."""
    with open(task_file, encoding="utf-8") as file:
        task = json.load(file)
    result = run(task)
    with open(result_file, "w", encoding="utf-8") as file:
        json.dump(result, file)


def run(task):
    """The result of a task as plain data: eV, eV/Å, eV/Å^3, fractions."""
    import numpy as np  # noqa: PLC0415
    from ase import Atoms  # noqa: PLC0415
    from gpaw import GPAW, PW, FermiDirac, setup_paths  # noqa: PLC0415

    setup_paths[:0] = task["setups"]
    cell = task["cell"]
    atoms = Atoms(
        numbers=cell["atomic_numbers"], scaled_positions=cell["frac_coords"], cell=cell["lattice"], pbc=True
    )
    spin = any(cell["magnetic_moments"])
    if spin:
        atoms.set_initial_magnetic_moments(cell["magnetic_moments"])
    options = {
        "mode": PW(task["cutoff"]),
        "xc": task["functional"],
        "kpts": {"size": task["k_mesh"], "gamma": True},
        "occupations": FermiDirac(task["smearing"]),
        "spinpol": spin,
        "nbands": "150%",
        "convergence": {"energy": 1e-6, "density": 1e-5, "eigenstates": 1e-9},
        "txt": task["name"] + ".txt",
    }
    calculator = GPAW(**options)
    atoms.calc = calculator
    converged = True
    if task["name"] == "relax":
        converged = _relax(atoms, task)
    energy = float(atoms.get_potential_energy())
    result = {
        "converged": bool(converged),
        "energy": energy,
        "forces": atoms.get_forces().tolist(),
        "stress": atoms.get_stress(voigt=False).tolist(),
        "lattice": np.array(atoms.cell).tolist(),
        "frac_coords": atoms.get_scaled_positions(wrap=False).tolist(),
        "electrons": float(calculator.get_number_of_electrons()),
        "spins": int(calculator.get_number_of_spins()),
    }
    if task["name"] == "bands":
        points = task["band_k_points"]
        fixed = calculator.fixed_density(
            kpts=points, symmetry="off", nbands=task["bands"], txt="bands.txt", convergence={"bands": -2}
        )
        calculator = fixed
    result["fermi_energy"] = float(calculator.get_fermi_level())
    result["k_points"] = np.array(calculator.get_ibz_k_points()).tolist()
    result["levels"] = [
        np.array(calculator.get_eigenvalues(kpt=k, spin=s)).tolist()
        for s in range(result["spins"])
        for k in range(len(result["k_points"]))
    ]
    return result


def _relax(atoms, task):
    """Whether ions and cell came to rest, within the symmetry."""
    from ase.optimize import BFGS  # noqa: PLC0415

    try:
        from ase.constraints import FixSymmetry  # noqa: PLC0415
    except ImportError:
        from ase.spacegroup.symmetrize import FixSymmetry  # noqa: PLC0415
    try:
        from ase.filters import FrechetCellFilter as CellFilter  # noqa: PLC0415
    except ImportError:  # ASE before 3.23
        from ase.constraints import ExpCellFilter as CellFilter  # noqa: PLC0415
    try:
        atoms.set_constraint([FixSymmetry(atoms)])
    except ImportError:  # ASE finds no spglib: GPAW's own symmetry keeps the forces symmetric
        atoms.set_constraint()
    optimiser = BFGS(CellFilter(atoms), logfile="relax.log", trajectory=None)
    done = optimiser.run(fmax=task["fmax"], steps=task["steps"])
    atoms.set_constraint()
    return done


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
