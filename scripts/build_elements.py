"""Writes src/nucleate/energetics/tables/elements.json: crystals of the elements and their energies with CHGNet.

    python scripts/build_elements.py

For each of the 89 elements CHGNet knows, several crystals are built from ``ase.data.reference_states`` (through
``ase.build.bulk``), from the AFLOW prototypes of the elements that pymatgen ships (Mehl et al., Comput. Mater. Sci.
136, S1 (2017)), from the close-packed and cubic lattices of metals, and, where the element is made of molecules, from
the packings of N2, O2 and I2 with the bond length of the free molecule (CRC Handbook). All are relaxed inside their
symmetry; the lowest energy is the element's reference. What a relaxation should not be believed for is left out and
named: one that fails, or whose volume leaves 0.5 to 2 times that of the start; an element of which nothing is left
(helium collapses) is taken at the volume of the source. Ten minutes on one core.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import warnings
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers, chemical_symbols, reference_states
from ase.spacegroup import crystal as build_crystal
from pymatgen.core import Structure

from nucleate.crystal import Crystal
from nucleate.energetics.batched_relaxation import relax
from nucleate.energetics.chgnet_potential import UNTRAINED, CHGNetPotential
from nucleate.energetics.records import crystal_to_json
from nucleate.energetics.relaxation import RelaxationSettings
from nucleate.errors import NucleateError
from nucleate.physics.elements import element_values

OUTPUT = Path(__file__).resolve().parents[1] / "src" / "nucleate" / "energetics" / "tables" / "elements.json"
MAX_ATOMS = 34
FMAX = 0.01
VOLUME_RANGE = (0.5, 2.0)

LATTICES = ("fcc", "bcc", "hcp", "dhcp", "sc", "diamond")
BONDS = {"H": 0.741, "N": 1.098, "O": 1.208, "F": 1.412, "Cl": 1.988, "Br": 2.281, "I": 2.666}  # Å
GASES = ("He", "Ne", "Ar", "Kr", "Xe")

#: Prototypes tried for elements that are not the one the prototype is named after, by AFLOW label.
RELATED = {
    "A_hR3_166_ac": (
        "Sm",
        "Y",
        "La",
        "Ce",
        "Pr",
        "Nd",
        "Gd",
        "Tb",
        "Dy",
        "Ho",
        "Er",
        "Tm",
        "Yb",
        "Lu",
        "Sc",
        "Li",
        "Na",
    ),
    "A_hR2_166_c": ("P", "As", "Sb", "Bi"),
    "A_oC8_64_f": ("P", "As", "Ga", "Cl", "Br", "I"),
    "A_hP3_152_a": ("S", "Se", "Te"),
    "A_hR1_166_a": ("Hg", "Po", "Te", "Sb"),
    "A_tI2_139_a": ("In", "Pa", "Sn", "Hg", "Ga", "Mn"),
    "A_tI4_141_a": ("Sn", "Si", "Ge"),
    "A_oC4_63_c": ("U", "Ce", "Np", "Pu", "Ga"),
    "A_oP8_62_2c": ("Np", "Pu", "U"),
    "A_tP4_129_ac": ("Np", "Pu"),
    "A_mP16_11_8e": ("Pu",),
    "A_oF8_70_a": ("Pu",),
    "A_cP20_213_cd": ("Mn",),
    "A_cI58_217_ac2g": ("Mn",),
    "A_cP1_221_a": ("Po", "Bi", "Sb", "P"),
    "A_hP4_194_bc": ("C",),
    "A_hP4_186_ab": ("C",),
    "A_hP4_194_f": ("C", "Si", "Ge"),
    "A_hR12_166_2h": ("B",),
    "A_oF128_70_4h": ("S",),
}


def volume_per_atom(symbol: str) -> float:
    """Å^3 from ASE's reference state, or from the table of elements where ASE has no crystal."""
    state = reference_states[atomic_numbers[symbol]] or {}
    # of the others ASE's table has the axes only, not the atoms
    if state.get("symmetry") in ("fcc", "bcc", "hcp", "diamond", "sc", "bct", "rhombohedral"):
        with contextlib.suppress(ValueError):  # a lattice with a basis that ASE does not know
            atoms = bulk(symbol)
            return atoms.get_volume() / len(atoms)
    return float(element_values("atomic_volume", atomic_numbers[symbol]))


def scaled(atoms: Atoms, volume: float) -> Atoms:
    atoms.set_cell(atoms.cell[:] * (volume * len(atoms) / atoms.get_volume()) ** (1 / 3), scale_atoms=True)
    return atoms


def lattice(symbol: str, name: str, volume: float) -> Atoms:
    if name == "dhcp":  # ABAC stacking; ideal c/a
        return scaled(
            build_crystal(
                [symbol] * 2,
                [(0, 0, 0), (1 / 3, 2 / 3, 0.25)],
                spacegroup=194,
                cellpar=[1, 1, 4 * (2 / 3) ** 0.5, 90, 90, 120],
            ),
            volume,
        )
    cubic = {"fcc": "fcc", "bcc": "bcc", "sc": "sc", "diamond": "diamond"}
    if name in cubic:
        return scaled(bulk(symbol, name, a=3.0), volume)
    return scaled(bulk(symbol, "hcp", a=3.0, c=3.0 * (8 / 3) ** 0.5), volume)


def molecular(symbol: str) -> dict[str, Atoms]:
    """Packings of diatomic molecules with the right bond: Pa-3, P6_3/mmc, alpha-O2."""
    bond = BONDS[symbol]
    radius = float(element_values("vdw_radius", atomic_numbers[symbol]))
    a = 2**0.5 * 2 * radius + 0.4 * bond  # molecules on a face-centred lattice
    packings = {}
    x = bond / (2 * 3**0.5 * a)
    packings["Pa-3, alpha-N2 type"] = build_crystal(
        symbol, [(x, x, x)], spacegroup=205, cellpar=[a, a, a, 90, 90, 90]
    )
    b = 2 * radius
    c = 2 * (b * (2 / 3) ** 0.5 + bond)
    packings["P6_3/mmc, dimers along c"] = build_crystal(
        symbol, [(1 / 3, 2 / 3, 0.25 - bond / (2 * c))], spacegroup=194, cellpar=[b, b, c, 90, 90, 120]
    )
    # alpha-O2: Barrett, Meyer and Wasserman, J. Chem. Phys. 47, 592 (1967), scaled with the radius
    size = radius / float(element_values("vdw_radius", 8))
    a, b, c, beta = 5.403 * size, 3.429 * size, 5.086 * size, np.radians(132.53)
    # the molecule stands upright on the (a, b) plane
    height = c * np.sin(beta)
    z = 0.5 * bond / height
    packings["C2/m, alpha-O2 type"] = build_crystal(
        symbol, [(-z * c * np.cos(beta) / a, 0, z)], spacegroup=12, cellpar=[a, b, c, 90, 132.53, 90]
    )
    return packings


def prototypes() -> list[tuple[str, str, str, Structure]]:
    """(AFLOW label, mineral, element named in the file, structure) of pymatgen's prototypes with one element."""
    path = files("pymatgen.analysis") / "prototypes" / "aflow_prototypes.json.gz"
    entries = json.loads(gzip.decompress(path.read_bytes()))
    found = []
    for entry in entries:
        structure = Structure.from_dict(entry["snl"])
        if len(structure.composition.elements) == 1 and len(structure) <= MAX_ATOMS:
            tags = entry["tags"]
            symbol = structure.composition.elements[0].symbol
            found.append((tags["aflow"], tags["mineral"].strip(), symbol, structure))
    return found


def candidates(symbol: str, known: list[tuple[str, str, str, Structure]]) -> dict[str, Crystal]:
    """Crystals of one element, by a name that says where they come from."""
    volume = volume_per_atom(symbol)
    built: dict[str, Atoms] = {}
    state = reference_states[atomic_numbers[symbol]] or {}
    # where ASE has no crystal of an element the prototypes below do
    with contextlib.suppress(ValueError, KeyError, NotImplementedError, RuntimeError, TypeError):
        if state.get("symmetry") != "orthorhombic":  # ASE builds one atom of several
            built[f"ase.build.bulk ({state['symmetry']})"] = bulk(symbol)
    for label, mineral, named, structure in known:
        if symbol == named or symbol in RELATED.get(label, ()):
            atoms = Atoms(
                numbers=[atomic_numbers[symbol]] * len(structure),
                scaled_positions=structure.frac_coords,
                cell=structure.lattice.matrix,
                pbc=True,
            )
            if symbol != named:
                atoms = scaled(atoms, volume)
            built[f"AFLOW {label} {mineral} of {named}"] = atoms
    if symbol in BONDS:
        built.update(molecular(symbol))
    else:
        names = ("fcc", "hcp", "bcc") if symbol in GASES else LATTICES
        built.update({f"{name} lattice": lattice(symbol, name, volume) for name in names})
    crystals = {}
    for name, atoms in built.items():
        try:
            crystals[name] = Crystal.from_structure(Atoms(atoms), symprec=0.01).crystal
        except NucleateError as error:
            print(f"{symbol} {name}: left out: {error}")
    return crystals


def main() -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    potential = CHGNetPotential()
    settings = RelaxationSettings(fmax=FMAX, max_evaluations=200)
    known = prototypes()
    elements = {}
    for z in range(1, 95):
        if z in UNTRAINED:
            continue
        symbol = chemical_symbols[z]
        starts = candidates(symbol, known)
        results = dict(zip(starts, relax(starts.values(), potential, settings=settings)))
        kept = {}
        for name, result in results.items():
            if not result.converged:
                print(f"{symbol} {name}: left out: {result.reason}")
            elif not VOLUME_RANGE[0] < result.volume_change < VOLUME_RANGE[1]:
                print(
                    f"{symbol} {name}: left out: the volume went to {result.volume_change:.2f} of the start"
                )
            else:
                kept[name] = result
        held = not kept
        if held:  # where CHGNet binds no crystal near the known volume, the known volume stands
            fixed = RelaxationSettings(fmax=FMAX, max_evaluations=200, relax_cell=False)
            found = dict(zip(starts, relax(starts.values(), potential, settings=fixed)))
            kept = {name: result for name, result in found.items() if result.converged}
        order = sorted(kept, key=lambda name: kept[name].energy_per_atom)
        lowest = kept[order[0]]
        note = ", cell held" if held else ""
        print(
            f"{symbol:2s} {lowest.energy_per_atom:9.4f} eV/atom  {order[0]} (of {len(starts)}{note})",
            flush=True,
        )
        elements[symbol] = {
            "energy_per_atom": round(lowest.energy_per_atom, 6),
            "structure": order[0],
            "cell_held": held,
            "space_group_found": lowest.space_group_found,
            "volume_per_atom": round(lowest.crystal.volume_per_atom, 4),
            "candidates": [
                {
                    "structure": name,
                    "energy_per_atom": round(kept[name].energy_per_atom, 6) if name in kept else None,
                    "crystal": rounded(starts[name]),
                }
                for name in [*order, *(n for n in starts if n not in kept)]
            ],
        }
    content = {
        "potential": potential.identity,
        "corrections": potential.corrections,
        "fmax": FMAX,
        "elements": elements,
    }
    OUTPUT.write_text(json.dumps(content, indent=None, separators=(",", ":")) + "\n", encoding="utf-8")


def rounded(crystal: Crystal) -> dict[str, object]:
    record = crystal_to_json(crystal)
    record["lattice_params"] = [round(value, 6) for value in record["lattice_params"]]
    record["free_coords"] = [[round(value, 6) for value in row] for row in record["free_coords"]]
    return record


if __name__ == "__main__":
    main()
