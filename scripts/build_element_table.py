"""Writes src/nucleate/physics/tables/elements.json from mendeleev, pymatgen and smact.

Order of sources per value: mendeleev; then pymatgen's element data (the value is then listed under
``from_pymatgen``); then the stated filling rule (listed under ``filled``). Electron affinities are pymatgen's
throughout. Oxidation-state frequencies are the counts of the ICSD (2024, V2) that smact ships.

Needs the development extra and ``pip install smact``:

    python scripts/build_element_table.py
"""

from __future__ import annotations

import json
import math
import warnings
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

import numpy as np

from nucleate.crystal.species import SYMBOLS

LAST = 103
MINIMUM_REPORTS = 6  # smact's own filtered list keeps states with more than 5 reports
COMMON_SHARE = 0.1
OUTPUT = Path(__file__).resolve().parents[1] / "src" / "nucleate" / "physics" / "tables" / "elements.json"
NOBLE = (2, 10, 18, 36, 54, 86)
COORDINATION = {
    "I": 1, "II": 2, "III": 3, "IIIPY": 3, "IV": 4, "IVSQ": 4, "IVPY": 4, "V": 5, "VI": 6, "VII": 7, "VIII":
    8, "IX": 9, "X": 10, "XI": 11, "XII": 12, "XIV": 14,
}  # fmt: skip
GEOMETRY = {"IIIPY": "pyramidal", "IVSQ": "square", "IVPY": "pyramidal"}
NONMETALS = {1, 2, 6, 7, 8, 9, 10, 15, 16, 17, 18, 34, 35, 36, 53, 54, 85, 86}
METALLOIDS = {5, 14, 32, 33, 51, 52}
UNFILLED_LABEL = "group neighbours"


def block_of(z: int) -> str:
    """Block with La to Yb and Ac to No in f, Lu and Lr in d."""
    if 57 <= z <= 70 or 89 <= z <= 102:
        return "f"
    if z in (1, 2):
        return "s"
    period_start = max(n for n in (0, *NOBLE) if n < z)
    column = z - period_start
    if column <= 2:
        return "s"
    next_noble = min(n for n in (*NOBLE, 118) if n >= z)
    return "p" if next_noble - z < 6 else "d"


def valence_of(configuration: dict[tuple[int, str], int], z: int) -> dict[str, int]:
    """Electrons outside the preceding noble-gas core, by shell (filled d and f shells counted)."""
    core: set[tuple[int, str]] = set()
    order = ["1s", "2s", "2p", "3s", "3p", "4s", "3d", "4p", "5s", "4d", "5p", "6s", "4f", "5d", "6p"]
    capacity = {"s": 2, "p": 6, "d": 10, "f": 14}
    closed = max((n for n in (0, *NOBLE) if n < z), default=0)
    electrons = 0
    for name in order:
        if electrons >= closed:
            break
        core.add((int(name[0]), name[1]))
        electrons += capacity[name[1]]
    result = dict.fromkeys("spdf", 0)
    for (n, shell), count in configuration.items():
        if (n, shell) not in core:
            result[shell] += int(count)
    return result


def finite(value: object) -> float | None:
    """The number, or None for anything that is not one."""
    if value is None:
        return None
    number = float(value)  # type: ignore[arg-type]
    return None if math.isnan(number) else number


def icsd_counts() -> dict[str, dict[int, int]]:
    """Reports per element and non-zero oxidation state in the ICSD (2024, V2), as smact ships them."""
    from smact import data_directory

    rows = json.loads((Path(data_directory) / "oxidation_states_icsd24_counts.json").read_text())
    counts: dict[str, dict[int, int]] = defaultdict(dict)
    for row in rows:
        if row["oxidation_state"] != 0 and row["results_count"] >= MINIMUM_REPORTS:
            counts[row["element"]][row["oxidation_state"]] = row["results_count"]
    return counts


def fill_gaps(table: dict[str, list[float | None]], feature: str, block: list[str], group: list[int]) -> dict:
    """Fills the None entries of one feature in place; returns symbol index -> rule used.

    s, p and d block: mean of the nearest known elements above and below in the group. f block: mean of the
    nearest known neighbours in Z within the series. Where neither exists: mean of the block.
    """
    values = table[feature]
    known = {z for z in range(1, LAST + 1) if values[z - 1] is not None}
    rules: dict[int, str] = {}
    filled: dict[int, float] = {}
    for z in range(1, LAST + 1):
        if z in known:
            continue
        if block[z - 1] == "f":
            series = range(57, 72) if z < 72 else range(89, 104)
            pool, rule = [k for k in series if k in known], "series neighbours"
        else:
            pool = [k for k in sorted(known) if group[k - 1] == group[z - 1] and block[k - 1] != "f"]
            rule = UNFILLED_LABEL
        nearest = [
            max((k for k in pool if k < z), default=None),
            min((k for k in pool if k > z), default=None),
        ]
        chosen = [k for k in nearest if k is not None]
        if not chosen:
            chosen = [k for k in sorted(known) if block[k - 1] == block[z - 1]]
            rule = "block mean"
        filled[z] = float(np.mean([values[k - 1] for k in chosen]))  # type: ignore[misc]
        rules[z] = rule
    for z, value in filled.items():
        values[z - 1] = round(value, 6)
    return rules


def main() -> None:
    warnings.simplefilter("ignore")
    from mendeleev import element
    from mendeleev.fetch import fetch_table
    from pymatgen.core import Element

    frame = fetch_table("elements").set_index("atomic_number")
    oxidation = fetch_table("oxidationstates")
    shannon = fetch_table("ionicradii")
    counts = icsd_counts()

    symbols = SYMBOLS
    names = [
        "period", "group", "electronegativity", "covalent_radius", "ionic_radius", "metallic_radius",
        "vdw_radius", "valence_s", "valence_p", "valence_d", "valence_f", "ionisation_energy",
        "electron_affinity",
        "dipole_polarisability", "oxidation_state_min", "oxidation_state_max", "oxidation_state_mean",
        "atomic_volume", "atomic_mass", "melting_point",
    ]  # fmt: skip
    table: dict[str, list[float | None]] = {name: [] for name in names}
    from_pymatgen: dict[str, list[str]] = {}
    converted: dict[str, list[str]] = {}
    block, common, everything, priors, radii = [], [], [], [], []

    # Noble gases have no Pauling value; their Allen value is mapped by the line fitted where both exist.
    both = frame.loc[1:LAST, ["en_pauling", "en_allen"]].dropna()
    slope, intercept = np.polyfit(both.en_allen, both.en_pauling, 1)

    def with_fallback(name: str, z: int, own: object, other: object) -> float | None:
        value = finite(own)
        if value is None and finite(other) is not None:
            value = finite(other)
            from_pymatgen.setdefault(name, []).append(symbols[z - 1])
        return value

    for z in range(1, LAST + 1):
        row, foreign, mine = frame.loc[z], Element.from_Z(z), element(z)
        symbol = symbols[z - 1]
        block.append(block_of(z))
        main_states = {
            int(s)
            for s in oxidation[
                (oxidation.atomic_number == z) & (oxidation.category == "main")
            ].oxidation_state
        }
        extended = {int(s) for s in oxidation[oxidation.atomic_number == z].oxidation_state} - {0}
        if z not in NONMETALS | METALLOIDS:
            # The negative states that mendeleev lists for metals are those of carbonyl complexes, not of
            # crystals.
            extended = {state for state in extended if state > 0}
        reports = counts.get(symbol, {})
        total = sum(reports.values())
        frequent = {state for state, count in reports.items() if count >= COMMON_SHARE * total}
        common.append(sorted((main_states - {0}) | frequent))
        everything.append(sorted(extended | set(reports) | set(common[-1])))
        priors.append({str(state): count for state, count in sorted(reports.items())})

        rows = shannon[shannon.atomic_number == z]
        radii.append(
            [
                [
                    int(r.charge),
                    COORDINATION[r.coordination],
                    GEOMETRY.get(r.coordination, ""),
                    r.spin if isinstance(r.spin, str) else "",
                    round(float(r.ionic_radius) / 100, 4),
                    round(float(r.crystal_radius) / 100, 4),
                ]
                for r in rows.itertuples()
            ]
        )
        by_charge: dict[int, list[tuple[int, int, float]]] = defaultdict(list)
        for charge, coordination, _, spin, ionic, _ in radii[-1]:
            by_charge[charge].append((abs(coordination - 6), 1 if spin == "LS" else 0, ionic))
        usable = [c for c in common[-1] if c in by_charge] or list(by_charge)
        ionic = float(np.mean([min(by_charge[c])[2] for c in usable])) if usable else None

        electronegativity = with_fallback("electronegativity", z, row.en_pauling, foreign.X)
        if electronegativity is None and finite(row.en_allen) is not None:
            electronegativity = slope * row.en_allen + intercept
            converted.setdefault("electronegativity", []).append(symbol)
        covalent = finite(row.covalent_radius_cordero)
        if covalent is None:
            covalent = finite(row.covalent_radius_pyykko)
            converted.setdefault("covalent_radius", []).append(symbol)
        metallic = finite(row.metallic_radius_c12)
        if metallic is None:
            metallic = with_fallback(
                "metallic_radius", z, row.metallic_radius,
                None if foreign.metallic_radius is None else 100 * float(foreign.metallic_radius),
            )  # fmt: skip
        vdw = finite(row.vdw_radius_alvarez)
        if vdw is None:
            vdw = finite(row.vdw_radius)
            converted.setdefault("vdw_radius", []).append(symbol)
        gas = row.density < 0.01
        own_volume = None if gas else row.atomic_weight / row.density / 0.602214076
        molar = finite(foreign.molar_volume) or None
        atomic_volume = with_fallback(
            "atomic_volume", z, own_volume, None if molar is None else molar / 0.602214076
        )
        shells = valence_of(dict(mine.ec.conf), z)
        group = 3 if 57 <= z <= 71 or 89 <= z <= 103 else int(row.group_id)
        values = {
            "period": float(row.period),
            "group": float(group),
            "electronegativity": electronegativity,
            "covalent_radius": None if covalent is None else covalent / 100,
            "ionic_radius": ionic,
            "metallic_radius": None if metallic is None else metallic / 100,
            "vdw_radius": None if vdw is None else vdw / 100,
            **{f"valence_{shell}": float(shells[shell]) for shell in "spdf"},
            "ionisation_energy": finite(mine.ionenergies.get(1)),
            # pymatgen first: mendeleev still has the pre-2019 lanthanides and resonance energies (He -19.7
            # eV) here.
            "electron_affinity": with_fallback("electron_affinity", z, None, foreign.electron_affinity),
            "dipole_polarisability": finite(row.dipole_polarizability),
            "oxidation_state_min": float(min(common[-1])) if common[-1] else 0.0,
            "oxidation_state_max": float(max(common[-1])) if common[-1] else 0.0,
            "oxidation_state_mean": float(np.mean(common[-1])) if common[-1] else 0.0,
            "atomic_volume": atomic_volume,
            "atomic_mass": float(row.atomic_weight),
            "melting_point": with_fallback("melting_point", z, mine.melting_point, foreign.melting_point),
        }
        for name in names:
            value = values[name]
            table[name].append(None if value is None else round(float(value), 6))

    groups = [int(g) for g in table["group"]]  # type: ignore[arg-type]
    filled = {}
    for name in names:
        rules = fill_gaps(table, name, block, groups)
        if rules:
            filled[name] = {symbols[z - 1]: rule for z, rule in rules.items()}
    result = {
        "format": 1,
        "versions": {name: version(name) for name in ("mendeleev", "pymatgen-core", "smact")},
        "block": "".join(block),
        "metallic": "".join(
            "n" if z in NONMETALS else "s" if z in METALLOIDS else "m" for z in range(1, LAST + 1)
        ),
        "features": table,
        "filled": filled,
        "from_pymatgen": from_pymatgen,
        "converted": converted,
        "allen_to_pauling": [round(float(slope), 6), round(float(intercept), 6)],
        "oxidation_states_common": common,
        "oxidation_states_all": everything,
        "icsd_reports": priors,
        "shannon_radii": radii,
    }
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(result, separators=(",", ":")) + "\n")
    gaps = sum(map(len, filled.values()))
    print(f"{OUTPUT.name}: {OUTPUT.stat().st_size / 1000:.0f} kB, {LAST} elements, {gaps} gaps filled")
    print("from pymatgen:", from_pymatgen)
    print("filled:", filled)
    print("converted:", converted)


if __name__ == "__main__":
    main()
