"""The sets of crystals that JARVIS distributes on figshare, and the units of their properties.

Addresses and file names are those of ``jarvis.db.figshare`` in jarvis-tools 2026.6.12. The JSON states no
units; the ones here are those under which JARVIS-DFT quotes these quantities in print (K. Choudhary and
B. DeCost, npj Comput. Mater. 7, 185 (2021)). They go with the names of JARVIS-DFT; ``units=`` overrides them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class JarvisDataset:
    """One set on figshare.

    Attributes:
        file_id: figshare's number of the zip file.
        member: name of the JSON file inside it.
        article_id: figshare's number of the article, whose listing holds the file's size and MD5.
        reference: what to cite.
    """

    file_id: int
    member: str
    article_id: int
    reference: str

    @property
    def url(self) -> str:
        """Address of the zip file."""
        return f"https://ndownloader.figshare.com/files/{self.file_id}"


_JARVIS_2025 = "https://doi.org/10.1016/j.commatsci.2025.114063"
_JARVIS_2020 = "https://www.nature.com/articles/s41524-020-00440-1"
_ALEXANDRIA = "https://alexandria.icams.rub.de/"

DATASETS: Mapping[str, JarvisDataset] = {
    "dft_3d": JarvisDataset(64391379, "jdft_3d-9-24-2025.json", 6815699, _JARVIS_2025),
    "dft_3d_2022": JarvisDataset(38521619, "jdft_3d-12-12-2022.json", 6815699, _JARVIS_2025),
    "dft_3d_2021": JarvisDataset(29204826, "jdft_3d-8-18-2021.json", 6815699, _JARVIS_2020),
    "dft_2d": JarvisDataset(38521268, "d2-12-12-2022.json", 6815705, _JARVIS_2025),
    "dft_2d_2021": JarvisDataset(26808917, "d2-3-12-2021.json", 6815705, _JARVIS_2020),
    "cfid_3d": JarvisDataset(29205201, "cfid_3d-8-18-2021.json", 6815699, _JARVIS_2020),
    "edos_pdos": JarvisDataset(29216859, "edos-up_pdos-elast_interp-8-18-2021.json", 14745327, _JARVIS_2020),
    "supercon_3d": JarvisDataset(
        38307921,
        "jarvis_epc_data_figshare_1058.json",
        21370572,
        "https://www.nature.com/articles/s41524-022-00933-1",
    ),
    "supercon_2d": JarvisDataset(
        38950433, "jarvis_epc_data_2d.json", 21370572, "https://doi.org/10.1021/acs.nanolett.2c04420"
    ),
    "megnet": JarvisDataset(
        26724977, "megnet.json", 14177630, "https://doi.org/10.1021/acs.chemmater.9b01294"
    ),
    "megnet2": JarvisDataset(
        28332741, "megnet-mp-2019-04-01.json", 14745435, "https://doi.org/10.1021/acs.chemmater.9b01294"
    ),
    "oqmd_3d_no_cfid": JarvisDataset(
        26790182, "all_oqmd.json", 14206169, "https://www.nature.com/articles/npjcompumats201510"
    ),
    "twod_matpd": JarvisDataset(
        26789006, "twodmatpd.json", 14205083, "https://doi.org/10.1038/s41597-019-0097-3"
    ),
    "c2db": JarvisDataset(28682010, "c2db_atoms.json", 14960157, "https://doi.org/10.1088/2053-1583/aacfc1"),
    "cod": JarvisDataset(28715301, "cod_db.json", 14912820, "https://doi.org/10.1107/S1600576720016532"),
    "cod_200": JarvisDataset(63463986, "cod_200.json", 14912820, "https://doi.org/10.1107/S1600576720016532"),
    "omdb": JarvisDataset(28501761, "omdbv1.json", 14812050, "https://doi.org/10.1002/qute.201900023"),
    "qmof": JarvisDataset(30972640, "qmof_db.json", 14812044, "https://doi.org/10.1016/j.matt.2021.02.015"),
    "hmof": JarvisDataset(
        30972655, "hmof_db_9_18_2021.json", 15127758, "https://doi.org/10.1021/acs.jpcc.6b08729"
    ),
    "polymer_genome": JarvisDataset(
        26809907, "pgnome.json", 14213603, "https://doi.org/10.1038/sdata.2016.12"
    ),
    "snumat": JarvisDataset(38521736, "snumat.json", 21713885, "https://doi.org/10.1038/s41597-020-00723-8"),
    "halide_peroskites": JarvisDataset(
        44619562, "halide_peroskites.json", 25256236, "https://doi.org/10.1039/D1EE02971A"
    ),
    "alex_pbe_hull": JarvisDataset(
        49622718, "alexandria_convex_hull_pbe_2023.12.29_jarvis_tools.json", 27174897, _ALEXANDRIA
    ),
    "alex_pbe_3d_all": JarvisDataset(
        49622946, "alexandria_pbe_3d_2024.10.1_jarvis_tools.json", 27174897, _ALEXANDRIA
    ),
    "alex_scan_3d_all": JarvisDataset(
        49623090, "alexandria_scan_3d_2024.10.1_jarvis_tools.json", 27174897, _ALEXANDRIA
    ),
    "alex_pbesol_3d_all": JarvisDataset(
        49623096, "alexandria_ps_3d_2024.10.1_jarvis_tools.json", 27174897, _ALEXANDRIA
    ),
    "alex_supercon": JarvisDataset(
        55551155, "alex_supercon.json", 27174897, "https://doi.org/10.1002/adfm.202404043"
    ),
}

#: JARVIS-DFT. Quantities without a unit (dielectric constants, spillage, Poisson ratio) carry "1".
UNITS: Mapping[str, str] = {
    "formation_energy_peratom": "eV/atom",
    "optb88vdw_total_energy": "eV/atom",
    "optb88vdw_bandgap": "eV",
    "mbj_bandgap": "eV",
    "hse_gap": "eV",
    "ehull": "eV/atom",
    "exfoliation_energy": "meV/atom",
    "elastic_tensor": "GPa",
    "bulk_modulus_kv": "GPa",
    "shear_modulus_gv": "GPa",
    "poisson": "1",
    "density": "g/cm³",
    "magmom_oszicar": "μB",
    "magmom_outcar": "μB",
    "slme": "%",
    "spillage": "1",
    "epsx": "1",
    "epsy": "1",
    "epsz": "1",
    "mepsx": "1",
    "mepsy": "1",
    "mepsz": "1",
    "dfpt_piezo_max_eij": "C/m²",
    "dfpt_piezo_max_dij": "pC/N",
    "dfpt_piezo_max_dielectric": "1",
    "dfpt_piezo_max_dielectric_electronic": "1",
    "dfpt_piezo_max_dielectric_ionic": "1",
    "max_ir_mode": "cm⁻¹",
    "min_ir_mode": "cm⁻¹",
    "modes": "cm⁻¹",
    "max_efg": "10²¹ V/m²",
    "avg_elec_mass": "mₑ",
    "avg_hole_mass": "mₑ",
    "effective_masses_300K.n": "mₑ",
    "effective_masses_300K.p": "mₑ",
    "n-Seebeck": "μV/K",
    "p-Seebeck": "μV/K",
    "n-powerfact": "μW/(m K²)",
    "p-powerfact": "μW/(m K²)",
    "Tc_supercon": "K",
    "Tc": "K",
    "encut": "eV",
    "kpoint_length_unit": "Å",
}
