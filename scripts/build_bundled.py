"""Write the bundled set of well-known crystals, ``src/nucleate/data/bundled_crystals.json``.

Two origins, each named with every crystal:

- experimental structures of the AFLOW Library of Crystallographic Prototypes as pymatgen ships
  them, in the standard setting of International Tables (unique axis b, hexagonal axes, origin
  choice 2);
- published asymmetric units, copied by hand in the setting of their source into
  ``bundled_published.toml``.

Free coordinates keep six decimals; the rest of every coordinate is completed exactly from the site
symmetry (the mean over the operations that fix the site), so that the stored crystals have their
groups to 1e-9. Every crystal is checked before it is written: stoichiometry, group (moyopy and
spglib at 1e-2, 1e-3 and 1e-5 Å), the shortest distance in units of covalent radii, and against its
origin. Left out on purpose: entries of pymatgen's AFLOW file with impossible distances (NiTi,
MgNi2, NiSbS, FeB, anatase, In, PtS: a coordinate, an origin or a cell is wrong there) or a wrong cell
(CoAs3), and compounds whose volume is more than 3 % from the benchmark data (``compare_bundled.py``).

    python scripts/build_bundled.py
"""

from __future__ import annotations

import argparse
import json
import re
import tomllib
import unicodedata
import warnings
from fractions import Fraction
from pathlib import Path

import gemmi
import moyopy
import numpy as np
import spglib
from ase.data import covalent_radii
from monty.serialization import loadfn
from pymatgen.analysis import prototypes
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Composition, Element, Lattice, Structure

SCRIPTS = Path(__file__).resolve().parent
OUT = SCRIPTS.parent / "src" / "nucleate" / "data" / "bundled_crystals.json"

# AFLOW label, formula in pymatgen's file, formula and name written here
AFLOW = [
    ("ABC2_aP16_1_4a_4a_8a", "KAsSe2", "KAsSe2", "potassium selenoarsenite"),
    ("AB2_aP12_1_4a_8a", "FeS2", "FeS2", "pyrite refined in P1"),
    ("A2B_mP12_14_2e_e", "ZrO2", "ZrO2", "baddeleyite"),
    ("AB2_mC6_12_a_i", "Te2Au", "AuTe2", "calaverite"),
    ("ABC3_mP10_11_e_e_ef", "KClO3", "KClO3", "potassium chlorate"),
    ("A_mC4_12_i", "O2", "O2", "alpha oxygen"),
    ("A_mP64_14_16e", "Se", "Se", "red selenium"),
    ("A_mP4_4_2a", "Te", "Te", "high-pressure tellurium"),
    ("A_mP16_11_8e", "Pu", "Pu", "alpha plutonium"),
    ("A2B5_mC28_15_f_e2f", "B2Pd5", "Pd5B2", "palladium boride"),
    ("AB3C_oP20_62_c_cd_a", "CaTiO3", "CaTiO3", "orthorhombic perovskite"),
    ("A2B3C7D_oP13_47_t_aq_eqrs_h", "Ba2YCu3O7", "YBa2Cu3O7", "YBCO"),
    ("AB2_oP6_58_a_g", "FeS2", "FeS2", "marcasite"),
    ("A_oC8_64_f", "P", "P", "black phosphorus"),
    ("A_oC8_64_f", "I", "I2", "iodine"),
    ("A_oF128_70_4h", "S", "S8", "alpha sulfur"),
    ("AB3_oP16_62_c_cd", "Fe3C", "Fe3C", "cementite"),
    ("A3B2_oP20_56_ce_e", "Sb2O3", "Sb2O3", "valentinite"),
    ("AB_oP8_62_c_c", "GeS", "GeS", "germanium sulfide"),
    ("AB_oP8_62_c_c", "MnP", "MnP", "manganese phosphide"),
    ("A2B_oF24_70_e_a", "TiSi2", "TiSi2", "titanium disilicide"),
    ("A2B_oC12_63_2c_c", "ZrSi2", "ZrSi2", "zirconium disilicide"),
    ("A2B_oP12_62_2c_c", "Co2Si", "Co2Si", "cobalt silicide"),
    ("AB2_oI6_71_a_g", "MoPt2", "MoPt2", "molybdenum platinum"),
    ("AB_oI4_44_a_b", "GaAs", "GaAs", "high-pressure gallium arsenide"),
    ("A2B_tP6_136_f_a", "TiO2", "TiO2", "rutile"),
    ("A4BC_tI24_141_h_b_a", "ZrSiO4", "ZrSiO4", "zircon"),
    ("ABC2_tI16_122_a_b_d", "FeCuS2", "CuFeS2", "chalcopyrite"),
    ("A2BC4D_tI16_121_d_a_i_b", "FeCu2SnS4", "Cu2FeSnS4", "stannite"),
    ("AB2_tI6_139_a_e", "Si2Mo", "MoSi2", "molybdenum disilicide"),
    ("AB2C4_tI14_139_a_e_ce", "La2CuO4", "La2CuO4", "tetragonal lanthanum cuprate, K2NiF4 type"),
    ("A2B_tP12_92_b_a", "SiO2", "SiO2", "alpha cristobalite"),
    ("ABC_tP6_129_c_a_c", "PbClF", "PbFCl", "matlockite"),
    ("A3B4_tI28_141_ad_h", "Mn3O4", "Mn3O4", "hausmannite"),
    ("AB4C_tI12_82_c_g_a", "BPO4", "BPO4", "boron phosphate"),
    ("A2BC4_tI14_82_bc_a_g", "Al2CdS4", "CdAl2S4", "cadmium thioaluminate"),
    ("AB4_tI10_87_a_h", "Ni4Mo", "Ni4Mo", "nickel molybdenum"),
    ("A2B3_tP10_127_g_ah", "U3Si2", "U3Si2", "uranium silicide"),
    ("A2B_tI12_140_h_a", "Al2Cu", "Al2Cu", "khatyrkite"),
    ("A3B_tI8_139_bd_a", "TiAl3", "TiAl3", "titanium trialuminide"),
    ("ABC2_tP4_123_d_a_f", "CaCuO2", "CaCuO2", "infinite-layer cuprate"),
    ("A_tP30_136_bf2ij", "U", "U", "beta uranium"),
    ("A2B_hP9_152_c_a", "SiO2", "SiO2", "alpha quartz P3_121"),
    ("AB_hP6_154_a_b", "HgS", "HgS", "cinnabar"),
    ("A2B3_hR10_167_c_e", "Al2O3", "Al2O3", "corundum"),
    ("ABC3_hR10_167_a_b_e", "CaCO3", "CaCO3", "calcite"),
    ("AB3C_hR10_148_c_f_c", "TiFeO3", "FeTiO3", "ilmenite"),
    ("ABC3_hR10_161_a_a_b", "LiNbO3", "LiNbO3", "lithium niobate"),
    ("A2B3_hR5_166_c_ac", "Bi2Te3", "Bi2Te3", "bismuth telluride"),
    ("A_hR2_166_c", "As", "As", "grey arsenic"),
    ("A_hP3_152_a", "Se", "Se", "grey selenium"),
    ("A_hR1_166_a", "Hg", "Hg", "alpha mercury"),
    ("A_hR3_166_ac", "Sm", "Sm", "alpha samarium"),
    ("ABC2_hR4_166_a_b_c", "NaCrS2", "NaCrS2", "caswellsilverite"),
    ("A3B2_hR5_155_e_c", "Ni3S2", "Ni3S2", "heazlewoodite"),
    ("AB3_hR8_148_c_f", "BiI3", "BiI3", "bismuth triiodide"),
    ("A3B_hP24_151_3c_2a", "CrCl3", "CrCl3", "chromium trichloride"),
    ("A3B2_hP5_164_ad_d", "Al3Ni2", "Al3Ni2", "aluminium nickel"),
    ("A7B6_hR13_166_ah_3c", "Fe7W6", "Fe7W6", "Frank-Kasper mu phase"),
    ("A2B_hP9_147_g_ad", "ZnAg2", "Ag2Zn", "zeta silver zinc"),
    ("AB2CD2_hP36_163_h_i_bf_i", "KAg(CN)2", "KAg(CN)2", "potassium silver cyanide"),
    ("A_hP2_194_c", "Mg", "Mg", "magnesium"),
    ("AB_hP4_186_b_b", "ZnS", "ZnS", "wurtzite"),
    ("AB_hP4_194_c_a", "NiAs", "NiAs", "nickeline"),
    ("AB2_hP12_194_f_ah", "MgZn2", "MgZn2", "hexagonal Laves phase C14"),
    ("AB2_hP3_191_a_d", "AlB2", "AlB2", "aluminium diboride"),
    ("AB_hP12_186_a2b_a2b", "SiC", "SiC", "moissanite 6H"),
    ("AB_hP6_191_f_ad", "CoSn", "CoSn", "cobalt stannide"),
    ("A3B_hP4_191_bc_a", "Li3N", "Li3N", "lithium nitride"),
    ("AB3C4_hP16_194_c_af_ef", "Ti4AlN3", "Ti4AlN3", "MAX phase 413"),
    ("ABC2_hP8_194_d_a_f", "AlCr2C", "Cr2AlC", "MAX phase 211"),
    ("AB2_hP9_180_d_j", "CrSi2", "CrSi2", "chromium disilicide"),
    ("A2B_hP9_189_fg_bc", "Fe2P", "Fe2P", "barringerite"),
    ("AB3_hP8_182_c_g", "Fe3C", "Fe3C", "bainite carbide"),
    ("AB3_hP8_194_c_bf", "Na3As", "Na3As", "sodium arsenide"),
    ("A3B_hP8_194_h_c", "Ni3Sn", "Ni3Sn", "nickel stannide"),
    ("A_cP1_221_a", "Po", "Po", "alpha polonium"),
    ("A_cF8_227_a", "C", "C", "diamond"),
    ("A_cI58_217_ac2g", "Mn", "Mn", "alpha manganese"),
    ("A_cP20_213_cd", "Mn", "Mn", "beta manganese"),
    ("AB_cF8_225_a_b", "NaCl", "NaCl", "rock salt"),
    ("AB_cF8_216_c_a", "ZnS", "ZnS", "sphalerite"),
    ("AB2_cF12_225_a_c", "CaF2", "CaF2", "fluorite"),
    ("AB2_cP12_205_a_c", "FeS2", "FeS2", "pyrite"),
    ("A2B_cP6_224_b_a", "Cu2O", "Cu2O", "cuprite"),
    ("A2BC4_cF56_227_d_a_e", "MgAl2O4", "MgAl2O4", "spinel"),
    ("A3B_cP8_223_c_a", "Cr3Si", "Cr3Si", "chromium silicide, A15"),
    ("A2B_cF24_227_d_a", "MgCu2", "MgCu2", "cubic Laves phase C15"),
    ("ABC_cF12_216_b_c_a", "MgAgAs", "MgAgAs", "half-Heusler"),
    ("AB3_cF16_225_a_bc", "BiF3", "BiF3", "alpha bismuth trifluoride"),
    ("A6B_cP7_221_f_a", "CaB6", "CaB6", "calcium hexaboride"),
    ("A12B_cF52_225_i_a", "UB12", "UB12", "uranium dodecaboride"),
    ("AB_cP8_198_a_a", "FeSi", "FeSi", "fersilicite"),
    ("A3B4C_cP8_215_d_e_a", "VCu3S4", "Cu3VS4", "sulvanite"),
    ("A12B_cI26_204_g_a", "Al12W", "Al12W", "aluminium tungsten"),
    ("AB5_cF24_216_a_ce", "Be5Au", "AuBe5", "gold beryllide, C15b"),
    ("AB3C3_cF112_227_c_de_f", "Fe3W3C", "Fe3W3C", "eta carbide"),
    ("A3B2_cI40_220_d_c", "Pu2C3", "Pu2C3", "plutonium carbide"),
    ("A6B23_cF116_225_e_acfh", "Cr23C6", "Cr23C6", "chromium carbide"),
]


def reference_group(number: int) -> gemmi.SpaceGroup:
    """Standard ITA setting of a space group."""
    return next(g for g in gemmi.spacegroup_table() if g.number == number and g.is_reference_setting())


def complete_by_site_symmetry(group: gemmi.SpaceGroup, coords: np.ndarray, *, tol: float) -> np.ndarray:
    """Coordinates with six decimals in their free directions and exact values elsewhere.

    The mean over the operations that bring the point back to within ``tol`` (fractional) is the projection on
    the space that the site symmetry fixes; it is applied again after rounding.
    """
    for decimals in (12, 6):
        images = []
        point = np.round(coords, decimals)
        for op in group.operations():
            image = np.array(op.apply_to_xyz(list(point)))
            shift = np.round(image - point)
            if np.abs(image - shift - point).max() < tol:
                images.append(image - shift)
        coords = np.mean(images, axis=0)
    return coords


def expand(group: gemmi.SpaceGroup, coords: np.ndarray) -> np.ndarray:
    """All images of a point in the cell, each once."""
    images: list[np.ndarray] = []
    for op in group.operations():
        image = np.array(op.apply_to_xyz(list(coords)))
        if all(np.abs((d := image - other) - np.round(d)).max() > 1e-5 for other in images):
            images.append(image)
    return np.array(images)


def structure(entry: dict) -> Structure:
    """The full cell of a stored entry."""
    group = gemmi.SpaceGroup(entry["space_group"])
    species, coords = [], []
    for element, _, point in entry["sites"]:
        orbit = expand(group, np.array(point, dtype=float))
        species += [element] * len(orbit)
        coords += list(orbit)
    return Structure(Lattice.from_parameters(*entry["cell"]), species, coords)


def moyo_dataset(crystal: Structure, symprec: float) -> moyopy.MoyoDataset:
    """moyopy's analysis in the standard setting."""
    cell = moyopy.Cell(
        crystal.lattice.matrix.tolist(), crystal.frac_coords.tolist(), [s.specie.Z for s in crystal]
    )
    return moyopy.MoyoDataset(cell, symprec=symprec, setting=moyopy.Setting.standard())


def rounded_cell(lattice: Lattice) -> list[float]:
    """Lengths and angles with the digits of a publication (10^-5 Å, 10^-4 degrees)."""
    return [round(x, 5) for x in lattice.abc] + [round(x, 4) for x in lattice.angles]


def citation(bibtex: str) -> str:
    """Authors, year, journal, volume and first page of the first article in a BibTeX text."""
    article = re.search(r"@article\{reference0,(.*?)\n\}", bibtex, re.DOTALL).group(1)
    fields = {
        key: plain_text(value)
        for key, value in re.findall(r"^\s*(\w+) = [\"{](.*?)[\"}],?$", article, re.MULTILINE)
        if not value.startswith("_")
    }
    names = [author.split()[-1] for author in re.sub(r",? (Jr\.|II)", "", fields["author"]).split(" and ")]
    who = " & ".join(names) if len(names) < 3 else f"{names[0]} et al."
    year = f" ({fields['year']})" if "year" in fields else ""
    return (
        f"{who}{year}, {fields['journal']} {fields.get('volume', '')}".rstrip() + f", {fields['page_first']}"
    )


def plain_text(latex: str) -> str:
    """Text with LaTeX accents as Unicode characters."""
    marks = {'"': "\u0308", "'": "\u0301", "`": "\u0300", "v": "\u030c", "~": "\u0303", "^": "\u0302"}
    for macro, letter in {
        r"{\aa}": "å",
        r"\aa": "å",
        r"\ae": "æ",
        r"{\o}": "ø",
        r"\o": "ø",
        r"\ss": "ß",
    }.items():
        latex = latex.replace(macro, letter)
    latex = re.sub(
        r"\\([\"'`v~^])\{?(\w)\}?",
        lambda m: unicodedata.normalize("NFC", m.group(2) + marks[m.group(1)]),
        latex,
    )
    return re.sub(r"[{}$]", "", latex).strip()


def from_aflow(record: dict, formula: str, name: str) -> dict:
    """Entry of one AFLOW prototype, in the standard setting."""
    crystal, tags = record["snl"].structure, record["tags"]
    dataset = moyo_dataset(crystal, 1e-3)
    group = reference_group(dataset.number)
    std = dataset.std_cell
    lattice = Lattice(np.array(std.basis))
    remaining = set(range(len(std.numbers)))
    sites = []
    for index in range(len(std.numbers)):
        if index not in remaining:
            continue
        point = np.array(std.positions[index])
        coords = complete_by_site_symmetry(group, point - np.floor(point + 1e-6), tol=1e-3)
        orbit = expand(group, coords)
        members = {
            j
            for j in remaining
            if std.numbers[j] == std.numbers[index]
            and np.abs((d := orbit - np.array(std.positions[j])) - np.round(d)).max(axis=1).min() < 1e-3
        }
        assert len(members) == len(orbit), (name, index, len(members), len(orbit))
        remaining -= members
        sites.append([Element.from_Z(std.numbers[index]).symbol, None, coords])
    paper = citation(record["snl"].references)
    return {
        "name": name,
        "formula": formula,
        "strukturbericht": (
            tags["strukturbericht"] if tags["strukturbericht"] not in (None, "None") else ""
        ).replace("\\", ""),
        "space_group": group.xhm(),
        "cell": constrained_cell(group, rounded_cell(lattice)),
        "sites": sites,
        "source": f"{paper}; AFLOW {tags['aflow']}",
    }


def constrained_cell(group: gemmi.SpaceGroup, cell: list[float]) -> list[float]:
    """The cell with the equalities and right angles of its crystal system."""
    a, b, c, alpha, beta, gamma = cell
    match group.crystal_system_str():
        case "cubic":
            return [a, a, a, 90.0, 90.0, 90.0]
        case "tetragonal":
            return [a, a, c, 90.0, 90.0, 90.0]
        case "hexagonal" | "trigonal":
            return [a, a, c, 90.0, 90.0, 120.0]
        case "orthorhombic":
            return [a, b, c, 90.0, 90.0, 90.0]
        case "monoclinic":
            return [a, b, c, 90.0, beta, 90.0]
    return [a, b, c, alpha, beta, gamma]


def from_publication(record: dict) -> dict:
    """Entry of one published asymmetric unit, in the setting of its source."""
    group = gemmi.SpaceGroup(record["space_group"])
    sites = []
    for line in record["sites"].strip().splitlines():
        element, *numbers = line.split()
        coords = np.array([float(Fraction(x)) for x in numbers])
        sites.append([element, None, complete_by_site_symmetry(group, coords, tol=2e-4)])
    return {
        "name": record["name"],
        "formula": record["formula"],
        "strukturbericht": "",
        "space_group": record["space_group"],
        "cell": record["cell"],
        "sites": sites,
        "source": record["source"],
    }


def with_letters(entry: dict) -> dict:
    """The entry with the Wyckoff letter of each site and JSON-sized numbers."""
    group = gemmi.SpaceGroup(entry["space_group"])
    dataset = moyo_dataset(structure(entry), 1e-4)
    sites, start = [], 0
    for element, _, coords in entry["sites"]:
        sites.append([element, dataset.wyckoffs[start], [round(float(x), 10) + 0.0 for x in coords]])
        start += len(expand(group, coords))
    slug = re.sub(r"[^a-z0-9]+", "-", f"{entry['formula']} {entry['name']}".lower().replace(",", "")).strip(
        "-"
    )
    return {"id": slug, **entry, "number": group.number, "sites": sites}


def check(entry: dict, origin: Structure | None) -> str:
    """One line of report; raises where an entry is not what it says."""
    crystal = structure(entry)
    stated = Composition(entry["formula"]).reduced_composition
    assert crystal.composition.reduced_composition.almost_equals(stated), (entry["name"], crystal.composition)
    for symprec in (1e-2, 1e-3, 1e-5):
        numbers = {
            moyo_dataset(crystal, symprec).number,
            spglib.get_symmetry_dataset(
                (crystal.lattice.matrix, crystal.frac_coords, [s.specie.Z for s in crystal]), symprec=symprec
            ).number,
        }
        assert numbers == {entry["number"]}, (entry["name"], symprec, numbers, entry["number"])
    if origin is not None:
        assert StructureMatcher().fit(crystal, origin), entry["name"]
        ratio = (crystal.volume / len(crystal)) / (origin.volume / len(origin))
        assert abs(ratio - 1) < 1e-4, (entry["name"], ratio)
    ratio, first, second = min(
        (
            n.nn_distance / (covalent_radii[site.specie.Z] + covalent_radii[n.specie.Z]),
            site.specie.symbol,
            n.specie.symbol,
        )
        for site, neighbors in zip(crystal, crystal.get_all_neighbors(5.0))
        for n in neighbors
    )
    assert 0.65 < ratio < 1.3, (entry["name"], ratio, first, second)
    return (
        f"{entry['id']:56s} {entry['space_group']:12s} {len(crystal):4d} atoms, shortest {first}-{second} "
        f"at {ratio:.2f} times the covalent radii"
    )


def main() -> None:
    """Build, check and write all entries."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    warnings.simplefilter("ignore")
    library = {}
    for record in loadfn(Path(prototypes.__file__).parent / "aflow_prototypes.json.gz"):
        crystal = record["snl"].structure
        library[record["tags"]["aflow"], crystal.composition.reduced_composition] = record
    entries = []
    for label, their_formula, formula, name in AFLOW:
        record = library[label, Composition(their_formula).reduced_composition]
        entry = with_letters(from_aflow(record, formula, name))
        print(check(entry, record["snl"].structure))
        entries.append(entry)
    for record in tomllib.loads((SCRIPTS / "bundled_published.toml").read_text())["crystal"]:
        entry = with_letters(from_publication(record))
        print(check(entry, None))
        entries.append(entry)
    assert len({e["id"] for e in entries}) == len(entries)
    entries.sort(key=lambda e: (e["number"], e["id"]))
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
    OUT.write_text(f"[\n{lines}\n]\n")
    print(f"{len(entries)} crystals written to {OUT.name}")


if __name__ == "__main__":
    main()
