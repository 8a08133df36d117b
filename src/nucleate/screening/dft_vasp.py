"""VASP inputs through pymatgen's Materials Project sets; POTCARs are named, never written."""

from __future__ import annotations

import json
import warnings
from typing import Any

from nucleate.crystal.crystal import Crystal
from nucleate.errors import ConfigError
from nucleate.screening.dft_inputs import DFTSettings, magnetic_moments

SETS = {
    "MPRelaxSet": "MPStaticSet",
    "MPScanRelaxSet": "MPScanStaticSet",
    "MP24RelaxSet": "MP24StaticSet",
}
"""Set of the relaxation and the static set that goes with it."""


def write_inputs(crystal: Crystal, settings: DFTSettings) -> dict[str, bytes]:
    """INCAR, KPOINTS, POSCAR and POTCAR.spec of ``relax/`` , ``scf/`` and ``bands/``.

    The sets decide functional, cut-off, k points and corrections, so that energies compare with the Materials
    Project; of the settings they take the magnetic moments. ``POTCAR.spec`` lists the names of the POTCARs in the
    order of the POSCAR; whoever has the licence puts them together. The band structure starts from the charge
    density of ``scf/`` (copy CHGCAR). r2SCAN sets have ``KSPACING`` instead of KPOINTS, and no ``bands/``: a meta-GGA
    has no band structure at fixed density. Without moments ISPIN is 1.

    Raises:
        ConfigError: no such set.
    """
    from pymatgen.io.vasp import sets  # noqa: PLC0415  heavy

    if settings.vasp_set not in SETS:
        raise ConfigError(f"sets for VASP are {', '.join(SETS)}, got {settings.vasp_set!r}")
    structure = crystal.to_structure("primitive")
    moments = magnetic_moments(crystal, settings)
    changes: dict[str, Any] = {}
    if any(moments):
        structure.add_site_property("magmom", moments)
    else:
        # MAGMOM of pymatgen's sets means nothing without spin
        changes = {"ISPIN": 1, "MAGMOM": None}
    relax, static = getattr(sets, settings.vasp_set), getattr(sets, SETS[settings.vasp_set])
    files: dict[str, bytes] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # POTCARs and libraries of others that this never touches
        made = {
            "relax": relax(structure, user_incar_settings=changes),
            "scf": static(structure, user_incar_settings={**changes, "LCHARG": True, "LWAVE": False}),
        }
        if settings.vasp_set == "MPRelaxSet":
            made["bands"] = sets.MPNonSCFSet(
                structure, mode="line", user_incar_settings={**changes, "LWAVE": False}
            )
        for task, inputs in made.items():
            for name, content in inputs.get_input_set(potcar_spec=True).items():
                text = "" if content is None else str(content)
                if text:
                    files[f"{task}/{name}"] = (text.rstrip("\n") + "\n").encode()
    about = {
        "sets": [type(made[task]).__name__ for task in sorted(made)],
        "potcars": files["relax/POTCAR.spec"].decode().split(),
        "initial_moments": moments,
    }
    files["about.json"] = (json.dumps(about, indent=1, sort_keys=True) + "\n").encode()
    return files
