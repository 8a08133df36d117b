"""Writes src/nucleate/physics/tables/bond_valence.json: the element parameters of O'Keeffe and Brese (1991).

    python scripts/build_bond_valence_table.py

As pymatgen has them: r (Å) and c of each element, its Pauling electronegativity, and which elements form anions.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

from pymatgen.core.bond_valence import BV_PARAMS, ELECTRONEG

OUTPUT = Path(__file__).resolve().parents[1] / "src" / "nucleate" / "physics" / "tables" / "bond_valence.json"


def table() -> dict[str, object]:
    """The parameters, elements by atomic number."""
    elements = sorted(BV_PARAMS, key=lambda element: element.Z)
    return {
        "source": "M. O'Keeffe and N. E. Brese, J. Am. Chem. Soc. 113 (1991) 3226, as in pymatgen-core "
        f"{version('pymatgen-core')} (MIT licence)",
        "atomic_numbers": [element.Z for element in elements],
        "r": [BV_PARAMS[element]["r"] for element in elements],
        "c": [BV_PARAMS[element]["c"] for element in elements],
        "electronegativity": [float(element.X) for element in elements],
        "anion_formers": sorted(element.Z for element in ELECTRONEG),
    }


if __name__ == "__main__":
    content = table()
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in content.items()]
    OUTPUT.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{OUTPUT}: {len(content['r'])} elements")
