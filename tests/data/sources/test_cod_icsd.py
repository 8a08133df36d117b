"""COD and ICSD: entries as their exports write them, and COD's server layout on loopback."""

from __future__ import annotations

import json
import zipfile

import pytest

from nucleate.data.sources import download, open_source
from nucleate.data.sources.cod import numbers_of_result
from nucleate.errors import SourceError

QUICK = download.RetryPolicy(attempts=2, first_wait=0.01, longest_wait=0.02, timeout=5.0)

HALITE = """#------------------------------------------------------------------------------
#$Date: 2016-02-13 $
# This file is available in the Crystallography Open Database (COD), http://www.crystallography.net/
#------------------------------------------------------------------------------
data_{number}
loop_
_publ_author_name
'Author, A.'
'Writer, B.'
_publ_section_title
;
 A title with data_ inside
data_trap
;
_journal_name_full               'Zeitschrift fur Beispiele'
_journal_page_first              1
_journal_volume                  12
_journal_year                    1926
{doi}_chemical_formula_sum            'Cl Na'
_chemical_name_mineral           Halite
_space_group_IT_number           225
_symmetry_space_group_name_Hall  '-F 4 2 3'
_symmetry_space_group_name_H-M   'F m -3 m'
_cell_angle_alpha                90
_cell_angle_beta                 90
_cell_angle_gamma                90
_cell_length_a                   5.6402(2)
_cell_length_b                   5.6402(2)
_cell_length_c                   5.6402(2)
_diffrn_ambient_temperature      298(2)
_diffrn_ambient_pressure         'room pressure'
_refine_ls_R_factor_all          0.021
_cod_database_code               {number}
loop_
_atom_site_label
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Na 0.00000 0.00000 0.00000 {occupancy}
Cl 0.50000 0.50000 0.50000 1
"""


def halite(number=1000041, *, doi="", occupancy="1") -> str:
    line = f"_journal_paper_doi '{doi}'\n" if doi else ""
    return HALITE.format(number=number, doi=line, occupancy=occupancy)


def check_halite(record):
    assert record.structure.num_atoms == 8
    assert record.structure.volume == pytest.approx(5.6402**3)
    assert record.properties == {"mineral": "Halite", "temperature": 298.0, "r_factor": 0.021, "year": 1926.0}
    assert record.units == {"temperature": "K"}
    assert record.provenance.licence == "CC0-1.0"
    assert record.provenance.database_id == "1000041"
    assert record.provenance.url.endswith("/1000041.html")


def test_mirror(tmp_path, read_all):
    branch = tmp_path / "cif" / "1" / "00" / "00"
    branch.mkdir(parents=True)
    (branch / "1000041.cif").write_text(halite())
    (branch / "1000042.cif").write_text(halite(1000042, occupancy="0.5"))
    contents = read_all(open_source(f"cod:{tmp_path}"))
    assert [record.id for record in contents.records] == ["cod-1000041"]
    check_halite(contents.records[0])
    assert contents.records[0].provenance.reference == "Zeitschrift fur Beispiele 12 (1926) 1"
    assert [rejection.id for rejection in contents.rejections] == ["cod-1000042"]


def test_by_number_and_by_search(http_server, read_all):
    server = http_server({"/cod/1000041.cif": halite(doi="10.1000/xyz").encode(), "/cod/1000050.cif": b""})
    base = f"{server.url}/cod"
    contents = read_all(open_source("cod:1000041, 1000050,9999999", base_url=base, retry=QUICK))
    check_halite(contents.records[0])
    assert contents.records[0].provenance.reference == "https://doi.org/10.1000/xyz"
    assert contents.records[0].provenance.file == f"{base}/1000041.cif"
    assert contents.reasons() == ["The file is empty.", "COD has no entry 9999999"]
    entries = [{"file": "1000041", "sg": "F m -3 m", "status": None, "duplicateof": None, "year": 1926},
               {"file": "1000099", "status": "retracted"},
               {"file": "1000098", "duplicateof": "1000041"}]  # fmt: skip
    server.answers["/cod/result?el1=Na&nel=2&format=json"] = json.dumps(entries).encode()
    contents = read_all(open_source("cod:?el1=Na&nel=2", base_url=base, retry=QUICK))
    assert [record.id for record in contents.records] == ["cod-1000041"]
    server.answers["/cod/result?el1=Xe&format=json"] = b"[]"
    assert read_all(open_source("cod:?el1=Xe", base_url=base, retry=QUICK)).reasons() == [
        "The search found no entries."
    ]


@pytest.mark.parametrize("result", [{"error": 1}, ["1000041"], [{"sg": "P 1"}], [{"file": "../../etc"}]])
def test_search_results_of_another_form_are_refused(result):
    with pytest.raises(SourceError):
        numbers_of_result(result)


@pytest.mark.parametrize("spec", ["", "12", "abc", "1000041;rm"])
def test_what_is_no_cod_number(spec):
    with pytest.raises(SourceError, match="seven-digit"):
        open_source(f"cod:{spec}")


ICSD = """
#(C) 2024 by FIZ Karlsruhe - Leibniz Institute for Information Infrastructure.  All rights reserved.
data_{code}-ICSD
_database_code_ICSD {code}
_chemical_name_common 'Titanium dioxide'
_chemical_formula_structural 'Ti O2'
_chemical_name_structure_type Rutile#TiO2
_chemical_name_mineral Rutile
loop_
_citation_id
_citation_journal_full
_citation_year
_citation_journal_volume
_citation_page_first
primary 'Acta Crystallographica B' 1971 27 2133
_cell_length_a 4.594(1)
_cell_length_b 4.594(1)
_cell_length_c 2.959
_cell_angle_alpha 90.
_cell_angle_beta 90.
_cell_angle_gamma 90.
_space_group_name_H-M_alt 'P 42/m n m'
_space_group_IT_number 136
loop_
_space_group_symop_id
_space_group_symop_operation_xyz
{operations}
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_symmetry_multiplicity
_atom_site_Wyckoff_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Ti1 Ti4+ 2 a 0 0 0 1.
O1 O2- 4 f 0.3053(1) 0.3053(1) 0 1.
#End of TTdata_{code}-ICSD
"""


def icsd(code: int) -> str:
    from pymatgen.symmetry.groups import SpaceGroup

    operations = sorted(op.as_xyz_str() for op in SpaceGroup("P4_2/mnm").symmetry_ops)
    lines = "\n".join(f"{i} '{op}'" for i, op in enumerate(operations, 1))
    return ICSD.format(code=code, operations=lines)


@pytest.mark.parametrize("packed", [False, True])
def test_icsd_export(tmp_path, structures, same_crystal, read_all, packed):
    if packed:
        path = tmp_path / "export.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for code in (9161, 33837):
                archive.writestr(f"YourCustomFileName_CollCode{code}.cif", icsd(code))
    else:
        path = tmp_path
        for code in (9161, 33837):
            (tmp_path / f"YourCustomFileName_CollCode{code}.cif").write_text(icsd(code))
    contents = read_all(open_source(f"icsd:{path}"))
    assert not contents.rejections
    assert sorted(record.id for record in contents.records) == ["icsd-33837", "icsd-9161"]
    for record in contents.records:
        assert same_crystal(record.structure, structures["rutile"])
        assert record.structure.site_properties["oxidation_state"].tolist() == [4, 4, -2, -2, -2, -2]
        assert record.properties["structure_type"] == "Rutile#TiO2"
        assert record.properties["year"] == 1971
        assert record.provenance.reference == "Acta Crystallographica B 27 (1971) 2133"
        assert "not to be passed on" in record.provenance.licence


def test_icsd_needs_a_folder():
    with pytest.raises(SourceError, match="folder of an ICSD export"):
        open_source("icsd:nowhere")
