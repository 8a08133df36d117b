"""CP2K inputs (Quickstep, GPW) through pymatgen's sections; bases and potentials are named, never copied."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nucleate.crystal.crystal import Crystal
from nucleate.errors import DFTError
from nucleate.screening.dft_inputs import (
    FUNCTIONALS,
    TASKS,
    DFTSettings,
    k_mesh,
    magnetic_moments,
)
from nucleate.screening.phonon_bands import band_path

if TYPE_CHECKING:
    from pymatgen.io.cp2k.inputs import Section

BASIS_FILE, BASIS = "BASIS_MOLOPT", "DZVP-MOLOPT-SR-GTH"
POTENTIAL_FILE = "GTH_POTENTIALS"
DEFAULT_GRID_CUTOFF, REL_CUTOFF = 600.0, 60.0
"""Ry."""

_BOLTZMANN = 8.617333262e-5
_RYDBERG = 13.605693122994
_HARTREE_PER_BOHR = 51.422067476


def write_inputs(crystal: Crystal, settings: DFTSettings) -> dict[str, bytes]:
    """``relax.inp`` (CELL_OPT), ``scf.inp`` and ``bands.inp`` (both ENERGY_FORCE) for the primitive cell.

    GPW with ``DZVP-MOLOPT-SR-GTH`` and GTH potentials, Fermi-Dirac smearing with diagonalisation, a Gamma-centred
    mesh of k points, spin (UKS) where an element often carries a moment. CP2K finds the data files in its data
    directory (``CP2K_DATA_DIR``). Where the settings name that folder, every element is looked up in it.

    Raises:
        DFTError: the folder lacks a basis or a potential of an element; the message names all of them.
    """
    if settings.cp2k_data:
        check_data(crystal, settings)
    return {
        f"{task}.inp": (str(_sections(crystal, settings, task)).strip() + "\n").encode() for task in TASKS
    }


def check_data(crystal: Crystal, settings: DFTSettings) -> None:
    """Nothing, if CP2K's data folder has the basis and the potential of each element.

    Raises:
        DFTError: the message names what is missing.
    """
    folder = Path(settings.cp2k_data)
    potential = _potential(settings)
    symbols = sorted(set(crystal.to_atoms("primitive").get_chemical_symbols()))
    missing = []
    for file, entry in ((BASIS_FILE, BASIS), (POTENTIAL_FILE, potential)):
        path = folder / file
        if not path.is_file():
            raise DFTError(f"{folder} is not CP2K's data folder: it has no {file}")
        present = set()
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                words = line.split()
                if len(words) > 1 and entry in words[1:]:
                    present.add(words[0])
        missing += [f"{symbol} ({entry} in {file})" for symbol in symbols if symbol not in present]
    if missing:
        raise DFTError(f"CP2K's data folder {folder} has nothing for {', '.join(missing)}")


def _potential(settings: DFTSettings) -> str:
    return f"GTH-{FUNCTIONALS[settings.functional]['cp2k']}"


def _sections(crystal: Crystal, settings: DFTSettings, task: str) -> Section:
    from pymatgen.io.cp2k.inputs import Cp2kInput  # noqa: PLC0415  heavy

    sections = {
        "GLOBAL": _section(
            "GLOBAL",
            PROJECT=task,
            RUN_TYPE="CELL_OPT" if task == "relax" else "ENERGY_FORCE",
            PRINT_LEVEL="LOW",
        ),
        "FORCE_EVAL": _section(
            "FORCE_EVAL",
            _dft(crystal, settings, task),
            _subsys(crystal, settings),
            _section("PRINT", _section("FORCES", parameter="ON"), _section("STRESS_TENSOR", parameter="ON")),
            METHOD="QUICKSTEP",
            STRESS_TENSOR="ANALYTICAL",
        ),
    }
    if task == "relax":
        sections["MOTION"] = _section(
            "MOTION",
            _section(
                "CELL_OPT",
                OPTIMIZER="BFGS",
                TYPE="DIRECT_CELL_OPT",
                KEEP_SYMMETRY="FALSE",
                MAX_ITER=settings.steps,
                MAX_FORCE=f"{settings.fmax / _HARTREE_PER_BOHR:.4e}",
                PRESSURE_TOLERANCE=f"[bar] {settings.max_pressure * 1e4:g}",
            ),
        )
    return Cp2kInput("CP2K_INPUT", subsections=sections)


def _dft(crystal: Crystal, settings: DFTSettings, task: str) -> Section:
    mesh = k_mesh(crystal.primitive_lattice, settings.k_spacing)
    grid = 4 * settings.cutoff / _RYDBERG if settings.cutoff else DEFAULT_GRID_CUTOFF
    scf = _section(
        "SCF",
        _section(
            "SMEAR", METHOD="FERMI_DIRAC", ELECTRONIC_TEMPERATURE=f"{settings.smearing / _BOLTZMANN:.2f}"
        ),
        _section("DIAGONALIZATION", ALGORITHM="STANDARD"),
        _section("MIXING", METHOD="BROYDEN_MIXING", ALPHA=0.2, NBROYDEN=8),
        SCF_GUESS="ATOMIC",
        EPS_SCF="1.0E-7",
        MAX_SCF=200,
        ADDED_MOS=_empty_levels(crystal),
    )
    parts = [
        _section("MGRID", CUTOFF=f"{grid:g}", REL_CUTOFF=f"{REL_CUTOFF:g}", NGRIDS=4),
        _section("QS", METHOD="GPW", EPS_DEFAULT="1.0E-12"),
        scf,
        _section("XC", _section("XC_FUNCTIONAL", parameter=FUNCTIONALS[settings.functional]["cp2k"])),
        _section(
            "KPOINTS",
            # CP2K's grids of an even number of points straddle Gamma; half a division brings them onto it
            SCHEME=" ".join(["MACDONALD", *map(str, mesh), *(f"{(1 - n % 2) / (2 * n):.10f}" for n in mesh)]),
            FULL_GRID="FALSE",
            SYMMETRY="FALSE",
            EPS_GEO="1.0E-8",
        ),
    ]
    if task == "bands":
        parts.append(_section("PRINT", _band_structure(crystal, settings)))
    spin: dict[str, Any] = {"UKS": "TRUE"} if any(magnetic_moments(crystal, settings)) else {}
    return _section("DFT", *parts, BASIS_SET_FILE_NAME=BASIS_FILE, POTENTIAL_FILE_NAME=POTENTIAL_FILE, **spin)


def _empty_levels(crystal: Crystal) -> int:
    """Levels beyond the filled ones: room for the tail of the smearing."""
    return max(6, 3 * crystal.num_atoms_primitive)


def _band_structure(crystal: Crystal, settings: DFTSettings) -> Section:
    pieces = band_path(crystal.primitive_lattice)
    points = max(2, settings.band_points // sum(len(piece) - 1 for piece in pieces))
    sets = []
    for piece in pieces:
        named = [f"{name} " + " ".join(f"{x:.10f}" for x in q) for name, q in piece]
        sets.append(
            _section("KPOINT_SET", UNITS="B_VECTOR", NPOINTS=points, repeated={"SPECIAL_POINT": named})
        )
    return _section("BAND_STRUCTURE", *sets, FILE_NAME="bands.bs", ADDED_MOS=_empty_levels(crystal))


def _subsys(crystal: Crystal, settings: DFTSettings) -> Section:
    cell = crystal.unit_cell("primitive")
    atoms = crystal.to_atoms("primitive")
    moments = magnetic_moments(crystal, settings)
    vectors: dict[str, Any] = {
        name: " ".join(f"{x:.12f}" for x in row) for name, row in zip("ABC", cell.lattice)
    }
    rows = [
        f"{symbol} " + " ".join(f"{x:.12f}" for x in coords)
        for symbol, coords in zip(atoms.get_chemical_symbols(), cell.frac_coords)
    ]
    kinds = []
    for symbol in sorted(set(atoms.get_chemical_symbols())):
        moment = moments[atoms.get_chemical_symbols().index(symbol)]
        spin: dict[str, Any] = {"MAGNETIZATION": f"{moment:g}"} if any(moments) else {}
        kinds.append(
            _section(
                "KIND",
                parameter=symbol,
                ELEMENT=symbol,
                BASIS_SET=BASIS,
                POTENTIAL=_potential(settings),
                **spin,
            )
        )
    return _section(
        "SUBSYS",
        _section("CELL", PERIODIC="XYZ", **vectors),
        _section("COORD", SCALED="TRUE", repeated={"": rows}),
        *kinds,
    )


def _section(
    name: str,
    *parts: Section,
    parameter: str = "",
    repeated: dict[str, list[str]] | None = None,
    **keywords: Any,
) -> Section:
    """A section of the input: its parts, its keywords, and keywords that stand several times."""
    from pymatgen.io.cp2k.inputs import Keyword, KeywordList, Section, SectionList  # noqa: PLC0415  heavy

    values: dict[str, Any] = {key: Keyword(key, value) for key, value in keywords.items()}
    for key, lines in (repeated or {}).items():
        values[key] = KeywordList([Keyword(key, line) for line in lines])
    groups: dict[str, list[Section]] = {}
    for part in parts:
        groups.setdefault(part.name, []).append(part)
    subsections = {key: group[0] if len(group) == 1 else SectionList(group) for key, group in groups.items()}
    return Section(
        name,
        subsections=subsections,
        keywords=values,
        section_parameters=[parameter] if parameter else [],
    )
