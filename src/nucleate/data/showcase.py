"""The showcase: the bundled crystals encoded, rebuilt, checked and written as one folder of results."""

from __future__ import annotations

import csv
import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path

import moyopy
import pyarrow as pa
import pyarrow.parquet as pq
from pymatgen.analysis.structure_matcher import StructureMatcher

import nucleate
from nucleate.crystal import Crystal, UnitCell, encode
from nucleate.crystal.pymatgen_structure import unit_cell_to_pymatgen
from nucleate.crystal.species import element_symbol
from nucleate.data.bundled import BundledCrystal, bundled_crystal, load_bundled
from nucleate.data.picture import Portrait, count_numbers, draw_crystals

#: Tolerance (Å) at which the rebuilt crystals must have the encoded group.
FOUND_AGAIN_SYMPREC = 1e-4

_PICTURE: tuple[tuple[str, tuple[str, ...], tuple[int, int, int], tuple[float, float]], ...] = (
    ("nacl-rock-salt", (), (1, 1, 1), (24.0, 14.0)),
    ("c-diamond", ("C",), (1, 1, 1), (24.0, 14.0)),
    ("srtio3-strontium-titanate", ("Ti",), (1, 1, 1), (24.0, 14.0)),
    ("na4al3si3o12cl-sodalite", ("Si", "Al"), (1, 1, 1), (12.0, 10.0)),
    ("tio2-rutile", ("Ti",), (1, 1, 1), (24.0, 14.0)),
    ("sio2-alpha-quartz-p3-121", ("Si",), (2, 2, 1), (30.0, 80.0)),
    ("caco3-calcite", ("C", "Ca"), (1, 1, 1), (24.0, 14.0)),
    ("zns-wurtzite", ("Zn",), (2, 2, 1), (24.0, 14.0)),
    ("yba2cu3o7-ybco", ("Cu",), (1, 1, 1), (24.0, 14.0)),
    ("catio3-orthorhombic-perovskite", ("Ti",), (1, 1, 1), (24.0, 14.0)),
    ("al2sio5-kyanite", ("Si", "Al"), (1, 1, 1), (24.0, 14.0)),
    ("mn-beta-manganese", (), (1, 1, 1), (24.0, 14.0)),
)


@dataclass(frozen=True)
class ShowcaseRow:
    """One crystal: what was encoded, and whether it survived.

    Attributes:
        id: name of its CIF file.
        name: mineral, phase or compound.
        formula: as a chemist writes it.
        crystal_system: one of seven.
        space_group_number: of the encoded crystal.
        space_group: short Hermann-Mauguin symbol.
        num_atoms: atoms of the conventional cell.
        num_atoms_primitive: atoms of the primitive cell.
        num_orbits: orbits.
        orbits: element and Wyckoff position of each orbit.
        num_free_coords: free coordinates.
        num_numbers: lattice parameters and free coordinates together.
        prototype_key: group, template and stoichiometric pattern.
        density: g/cm³.
        volume_per_atom: Å³.
        max_displacement: furthest any atom was moved onto its symmetric place, Å.
        max_strain: largest change of the lattice.
        has_stated_group: the encoded group is the one its source states.
        found_again: moyopy finds the encoded group in the rebuilt crystal at 1e-4 Å.
        matches_input: pymatgen's StructureMatcher matches the rebuilt crystal to the input.
        source: where the numbers come from.
    """

    id: str
    name: str
    formula: str
    crystal_system: str
    space_group_number: int
    space_group: str
    num_atoms: int
    num_atoms_primitive: int
    num_orbits: int
    orbits: str
    num_free_coords: int
    num_numbers: int
    prototype_key: str
    density: float
    volume_per_atom: float
    max_displacement: float
    max_strain: float
    has_stated_group: bool
    found_again: bool
    matches_input: bool
    source: str

    @property
    def survived(self) -> bool:
        """Whether every check holds."""
        return self.has_stated_group and self.found_again and self.matches_input


def showcase_row(
    bundled: BundledCrystal, crystal: Crystal, *, displacement: float, strain: float
) -> ShowcaseRow:
    """What can be said about a crystal after it was rebuilt from its encoding, checked against the input."""
    rebuilt = crystal.unit_cell("primitive")
    matcher = StructureMatcher(primitive_cell=True, attempt_supercell=False)
    symbols = [element_symbol(int(z)) for z in crystal.atomic_numbers]
    return ShowcaseRow(
        id=bundled.id,
        name=bundled.name,
        formula=bundled.formula,
        crystal_system=crystal.group.crystal_system,
        space_group_number=crystal.space_group_number,
        space_group=crystal.group.symbol,
        num_atoms=crystal.num_atoms,
        num_atoms_primitive=crystal.num_atoms_primitive,
        num_orbits=crystal.num_orbits,
        orbits=" ".join(f"{s}:{p.label}" for s, p in zip(symbols, crystal.positions)),
        num_free_coords=crystal.num_free_coords,
        num_numbers=count_numbers(crystal)[0],
        prototype_key=crystal.prototype_key,
        density=crystal.density,
        volume_per_atom=crystal.volume_per_atom,
        max_displacement=displacement,
        max_strain=strain,
        has_stated_group=crystal.space_group_number == bundled.space_group_number,
        found_again=_moyopy_group(rebuilt, FOUND_AGAIN_SYMPREC) == crystal.space_group_number,
        matches_input=bool(
            matcher.fit(unit_cell_to_pymatgen(rebuilt), unit_cell_to_pymatgen(bundled.unit_cell))
        ),
        source=bundled.source,
    )


def write_showcase(
    out: Path, *, symprec: float = 0.01, on_row: Callable[[ShowcaseRow], None] | None = None
) -> list[ShowcaseRow]:
    """Encode all bundled crystals and write ``out``; gives back one row per crystal.

    The folder holds ``crystals/*.cif`` (symmetrised), ``crystals.csv`` and ``crystals.parquet`` with one row
    per crystal, ``crystals.png`` and ``run.json``. Files of an earlier run are replaced.

    Args:
        out: the folder, made if it does not exist.
        symprec: tolerance (Å) of the symmetry search.
        on_row: called with each row when it is ready.
    """
    start = time.time()
    folder = out / "crystals"
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for bundled in load_bundled():
        encoded = encode(bundled.unit_cell, symprec=symprec)
        row = showcase_row(
            bundled, encoded.crystal, displacement=encoded.max_displacement, strain=encoded.max_strain
        )
        (folder / f"{row.id}.cif").write_text(encoded.crystal.to_cif(name=row.id), encoding="utf-8")
        rows.append(row)
        if on_row is not None:
            on_row(row)
    _write_tables(rows, out)
    draw_showcase(out / "crystals.png", symprec=symprec)
    run = {
        "command": "demo",
        "settings": {"symprec": symprec, "found_again_symprec": FOUND_AGAIN_SYMPREC},
        "num_crystals": len(rows),
        "num_survived": sum(row.survived for row in rows),
        "seconds": round(time.time() - start, 3),
        "versions": {
            "nucleate": nucleate.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("moyopy", "numpy", "pymatgen-core", "pyarrow", "gemmi")},
        },
    }
    (out / "run.json").write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    return rows


def draw_showcase(path: Path, *, symprec: float = 0.01) -> Path:
    """Draw twelve of the bundled crystals, from their encodings; gives back the path of the PNG."""
    portraits = []
    for crystal_id, polyhedra, repeats, view in _PICTURE:
        bundled = bundled_crystal(crystal_id)
        crystal = encode(bundled.unit_cell, symprec=symprec).crystal
        portraits.append(
            Portrait(crystal, bundled.formula, bundled.name.removesuffix(" P3_121"), polyhedra, repeats, view)
        )
    return draw_crystals(
        portraits,
        path,
        heading="Twelve crystals, each as its asymmetric unit",
        subheading="outlined: the atoms that are stored    pale: what the space group makes of them",
    )


def _write_tables(rows: list[ShowcaseRow], out: Path) -> None:
    records = [asdict(row) for row in rows]
    with (out / "crystals.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=[field.name for field in fields(ShowcaseRow)])
        writer.writeheader()
        writer.writerows(records)
    pq.write_table(pa.Table.from_pylist(records), out / "crystals.parquet", compression="zstd")


def _moyopy_group(cell: UnitCell, symprec: float) -> int:
    """Space group number moyopy finds, 0 if its search fails."""
    foreign = moyopy.Cell(cell.lattice.tolist(), cell.frac_coords.tolist(), cell.atomic_numbers.tolist())
    try:
        return moyopy.MoyoDataset(foreign, symprec=symprec, rotate_basis=False).number
    except ValueError:
        return 0
