"""Writes src/nucleate/evaluation/tables/smact.json: the element data of SMACT that published validities rest on.

    pip download --no-deps smact==2.2.1 && unzip SMACT-2.2.1-py3-none-any.whl -d smact-2.2.1
    python scripts/build_smact_table.py smact-2.2.1

CDVAE, DiffCSP and FlowMM were evaluated with SMACT 2.2.1. Later versions changed the oxidation states (Ir -3 in
2.5.5, the ICSD24 list from 3.0), the list of metals and the rule for missing electronegativities.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

OUTPUT = Path(__file__).resolve().parents[1] / "src" / "nucleate" / "evaluation" / "tables" / "smact.json"
LAST_ELEMENT = 103


def read_table(package: Path) -> dict[str, object]:
    """Element data of the SMACT whose package folder is in ``package``."""
    sys.path.insert(0, str(package))
    import smact

    if not Path(smact.__file__).is_relative_to(package.resolve()):
        raise SystemExit(f"{smact.__file__} is not the SMACT in {package}")
    elements = [smact.Element(symbol) for symbol in smact.ordered_elements(1, LAST_ELEMENT)]
    return {
        "source": "SMACT 2.2.1, https://github.com/WMD-group/SMACT, MIT licence, (c) Keith T. Butler, Adam J. "
        "Jackson, Daniel Davies and contributors",
        "symbols": [e.symbol for e in elements],
        "oxidation_states": [list(e.oxidation_states or ()) for e in elements],
        "electronegativity": [e.pauling_eneg for e in elements],
        "metal": [e.symbol in smact.metals for e in elements],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("package", type=Path, help="folder that holds the package smact, version 2.2.1")
    table = read_table(parser.parse_args().package)
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in table.items()]
    OUTPUT.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{OUTPUT}: {len(table['symbols'])} elements")
