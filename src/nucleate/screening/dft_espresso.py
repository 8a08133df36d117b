"""Quantum ESPRESSO: inputs of pw.x, and its results read back from the XML file it writes."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.unit_cell import UnitCell
from nucleate.errors import DFTError
from nucleate.screening.dft_inputs import TASKS, DFTSettings, band_k_points, k_mesh, magnetic_moments
from nucleate.screening.dft_results import DFTResult, band_gap
from nucleate.screening.pseudopotentials import Pseudopotential, choose_pseudopotentials, cutoffs

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

PREFIX = "crystal"
OUT = "out"
RYDBERG, HARTREE, BOHR = 13.605693122994, 27.211386245988, 0.529177210903
"""eV, eV and Å."""

_LARGEST_XML = 512 * 1024 * 1024


def write_inputs(crystal: Crystal, settings: DFTSettings) -> dict[str, bytes]:
    """``relax.in`` (vc-relax), ``scf.in``, ``bands.in`` of pw.x and ``about.json``.

    Written by ASE for the primitive cell (``ibrav = 0``, crystal coordinates), with cut-offs of the pseudopotentials, a
    Gamma-centred mesh, Marzari-Vanderbilt smearing, and spin where an element often carries a moment
    (``starting_magnetization`` is the moment over the valence). ``pseudo_dir`` is the folder that was given.

    Raises:
        DFTError: pseudopotentials are missing, or the name of their folder holds a quotation mark.
    """
    chosen = _pseudopotentials(crystal, settings)
    files = {f"{task}.in": pw_input(crystal, settings, task, chosen).encode() for task in TASKS}
    waves, density = cutoffs(chosen.values(), settings.cutoff)
    about = {
        "pseudopotentials": {symbol: vars(p) for symbol, p in sorted(chosen.items())},
        "cutoff_ev": waves,
        "density_cutoff_ev": density,
        "k_mesh": k_mesh(crystal.primitive_lattice, settings.k_spacing),
        "band_path": band_k_points(crystal, settings)[1],
        "initial_moments": magnetic_moments(crystal, settings),
    }
    files["about.json"] = (json.dumps(about, indent=1, sort_keys=True) + "\n").encode()
    return files


def _pseudopotentials(crystal: Crystal, settings: DFTSettings) -> dict[str, Pseudopotential]:
    symbols = crystal.to_atoms("primitive").get_chemical_symbols()
    return choose_pseudopotentials(settings.pseudopotentials, symbols, settings.functional)


def pw_input(
    crystal: Crystal, settings: DFTSettings, task: str, chosen: dict[str, Pseudopotential] | None = None
) -> str:
    """Text of the input of pw.x for one task.

    Args:
        crystal: its primitive cell is calculated.
        settings: cut-offs, mesh and tolerances.
        task: ``relax``, ``scf`` or ``bands`` (which needs the charge density of an ``scf`` in the same folder).
        chosen: pseudopotentials; looked for in the settings' folder otherwise.
    """
    from ase.io.espresso import write_espresso_in  # noqa: PLC0415  heavy

    chosen = chosen or _pseudopotentials(crystal, settings)
    atoms = crystal.to_atoms("primitive")
    symbols = atoms.get_chemical_symbols()
    waves, density = cutoffs(chosen.values(), settings.cutoff)
    electrons = sum(chosen[symbol].valence for symbol in symbols)
    moments = magnetic_moments(crystal, settings)
    atoms.set_initial_magnetic_moments(
        [round(min(1.0, m / chosen[s].valence), 6) for m, s in zip(moments, symbols)]
    )
    data: dict[str, dict[str, Any]] = {
        "control": {
            "calculation": {"relax": "vc-relax"}.get(task, task),
            "prefix": PREFIX,
            "outdir": f"./{OUT}",
            "pseudo_dir": _quotable(str(Path(settings.pseudopotentials).resolve())),
            "tprnfor": task != "bands",
            "tstress": task != "bands",
            "forc_conv_thr": settings.fmax / (RYDBERG / BOHR),
            "etot_conv_thr": 1e-5 * len(atoms),
            "nstep": settings.steps,
            "disk_io": "low",
        },
        "system": {
            "ecutwfc": round(waves / RYDBERG, 4),
            "ecutrho": round(density / RYDBERG, 4),
            "occupations": "smearing",
            "smearing": "cold",
            "degauss": round(settings.smearing / RYDBERG, 8),
            # room above the highest occupied level, for gaps and for the tail of the smearing
            "nbnd": math.ceil(electrons / 2) + max(4, math.ceil(0.1 * electrons)),
        },
        "electrons": {"conv_thr": 1e-9 * len(atoms), "mixing_beta": 0.4, "electron_maxstep": 200},
    }
    if any(moments):
        data["system"]["nspin"] = 2
    if task == "relax":
        data["ions"] = {"ion_dynamics": "bfgs"}
        data["cell"] = {"cell_dynamics": "bfgs", "press_conv_thr": settings.max_pressure * 10}
    points: Any = k_mesh(crystal.primitive_lattice, settings.k_spacing)
    if task == "bands":
        path, _ = band_k_points(crystal, settings)
        points = np.hstack([path, np.ones((len(path), 1))])
    buffer = io.StringIO()
    write_espresso_in(
        buffer,
        atoms,
        input_data=data,
        pseudopotentials={symbol: p.file for symbol, p in chosen.items()},
        kpts=points,
        crystal_coordinates=True,
    )
    # sections of later versions that ASE opens and leaves empty; older ones stumble over them
    return buffer.getvalue().replace("&FCP\n/\n", "").replace("&RISM\n/\n", "").rstrip() + "\n"


def _quotable(path: str) -> str:
    """The path, if a Fortran namelist can hold it."""
    if any(mark in path for mark in "'\"\n\r"):
        raise DFTError(
            f"pw.x cannot be given the folder {path!r}: a quotation mark or a line break is in its name"
        )
    return path


def read_result(folder: Path, task: str) -> DFTResult:
    """Result of a finished pw.x run from ``out/crystal.xml`` in its folder.

    Raises:
        DFTError: the file is missing, cut short, or lacks what the task gives.
    """
    from xml.etree import ElementTree  # noqa: PLC0415  needed by runs only

    path = folder / OUT / f"{PREFIX}.xml"
    try:
        if path.stat().st_size > _LARGEST_XML:
            raise DFTError(f"{path} has {path.stat().st_size:,} bytes, more than pw.x writes for a crystal")
        output = ElementTree.parse(path).getroot().find("output")
    except (OSError, ElementTree.ParseError) as error:
        raise DFTError(f"the results of pw.x in {path} cannot be read ({error})") from error
    if output is None:
        raise DFTError(f"{path} has no results: pw.x stopped early")
    try:
        return _result(output, task)
    except (AttributeError, ValueError, TypeError, IndexError) as error:
        raise DFTError(f"{path} lacks results of {task} ({type(error).__name__}: {error})") from error


def _result(output: Element, task: str) -> DFTResult:
    cell = _unit_cell(output)
    bands = _required(output, "band_structure")
    levels = np.array([_numbers(row, "eigenvalues") for row in bands.findall("ks_energies")]) * HARTREE
    if (bands.findtext("lsda") or "false").strip() == "true":
        levels = np.concatenate(np.split(levels, 2, axis=1))
    electrons = float(_text(bands, "nelec"))
    fermi_text = bands.findtext("fermi_energy") or bands.findtext("highestOccupiedLevel")
    fermi = float(fermi_text) * HARTREE if fermi_text else None
    per_level = 1 if (bands.findtext("lsda") or "").strip() == "true" else 2
    k_points = np.array([_numbers(row, "k_point") for row in bands.findall("ks_energies")])
    if task == "bands":
        gap = band_gap(levels, electrons, per_level)
        return DFTResult("espresso", task, True, None, cell, None, None, gap, fermi, levels, k_points)
    info = _required(output, "convergence_info")
    converged = _text(info, "scf_conv/convergence_achieved") == "true"
    if task == "relax":
        converged = converged and _text(info, "opt_conv/convergence_achieved") == "true"
    forces = _numbers(output, "forces").reshape(-1, 3) * HARTREE / BOHR
    # pw.x counts tension as negative pressure, as its output does; ASE and this package count it as positive stress
    stress = -_numbers(output, "stress").reshape(3, 3) * HARTREE / BOHR**3
    return DFTResult(
        "espresso",
        task,
        converged,
        float(_text(output, "total_energy/etot")) * HARTREE,
        cell,
        forces,
        stress,
        band_gap(levels, electrons, per_level),
        fermi,
        levels,
        k_points,
    )


def _unit_cell(output: Element) -> UnitCell:
    from ase.data import atomic_numbers  # noqa: PLC0415  heavy

    structure = _required(output, "atomic_structure")
    lattice = np.array([_numbers(structure, f"cell/a{i}") for i in (1, 2, 3)]) * BOHR
    atoms = structure.findall("atomic_positions/atom")
    positions = np.array([[float(x) for x in (atom.text or "").split()] for atom in atoms]) * BOHR
    symbols = [atom.attrib["name"].rstrip("0123456789").strip() for atom in atoms]
    numbers = np.array([atomic_numbers[symbol] for symbol in symbols], dtype=np.int64)
    return UnitCell(lattice, positions @ np.linalg.inv(lattice), numbers)


def _required(element: Element, path: str) -> Element:
    found = element.find(path)
    if found is None:
        raise ValueError(f"no {path}")
    return found


def _text(element: Element, path: str) -> str:
    return (_required(element, path).text or "").strip()


def _numbers(element: Element, path: str) -> np.ndarray:
    return np.array([float(x) for x in _text(element, path).split()])
