"""Energies above hull of FlowMM's samples: those that came with them against ours.

    python benchmarks/hull_agreement.py --data ../shared/data --count 1000 --cache FOLDER

FlowMM's ``chgnet_ehull`` (0 where it is negative) is the CHGNet energy of a relaxed sample above the hull of the whole
Materials Project's DFT energies. Ours is the same crystal's CHGNet energy above a hull of CHGNet energies: elements
(bundled), and those records of ``--pools`` that lie within ``--near`` of their given DFT hull (all records
where none is given), as they are (``--window 0``) or relaxed where they lie near the hull.

Prints Spearman's rank correlation and the offset, for all samples and for those whose hull can be checked without
CHGNet and without FlowMM: by the given DFT energies above hull of the Materials Project's records against those above
the hull of our own records' DFT energies. *Verified at formula*: there is a record of the sample's reduced formula, and
none of these has a given energy more than 0.01 eV/atom larger: the hull is right where the sample lies. *Verified
system*: there is a record of exactly the sample's elements, and no record of the system or its subsystems has one
(weaker: at the sample's own composition there need not be a record). Last it counts the samples whose energy is lower
than FlowMM's by more than ``LOWER``, and how many of these are so as well above the hull of the same records' DFT
energies, in which CHGNet has no part: there the records are at fault, not the potential. Energies are kept in
``--cache``; a killed run goes on.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from scipy.stats import spearmanr

from nucleate.crystal import Crystal, UnitCell, encode
from nucleate.energetics.cache import ResultCache
from nucleate.energetics.chgnet_potential import CHGNetPotential
from nucleate.energetics.element_references import ElementReferences
from nucleate.energetics.hull import FixedEntries, ReferenceEntry, ReferenceHull, System
from nucleate.energetics.potential import evaluate_each
from nucleate.energetics.reference_energies import ComputedEntries, JoinedEntries
from nucleate.errors import NucleateError

POOLS = ("train", "val", "excluded", "test")
VERIFIED = 0.01  # eV/atom
LOWER = 0.02  # eV/atom


@dataclass(frozen=True)
class Source:
    """File, and its columns of ids, of DFT energies above hull and of DFT formation energies in MP's convention."""

    file: str
    id: str
    hull: str | None = None
    formation: str | None = None
    pooled: bool = True


SOURCES = (
    Source("mp_20", "material_id", "e_above_hull", "formation_energy_per_atom"),
    Source("mpts_52", "material_id", "energy_above_hull", "formation_energy_per_atom"),
    Source("mp_40", "material_id", "energy_above_hull"),
    Source("jarvis_dft3d", "jid", "ehull"),
    Source("wbm", "row", None, "formation_energy_per_atom"),
    Source("mp_dielectric", "material_id", pooled=False),
    Source("mp_piezo", "material_id", pooled=False),
    Source("ocp_bulks", "material_id", pooled=False),
)


def cell_of(row: dict[str, Any]) -> UnitCell:
    return UnitCell(
        np.array(row["lattice"]).reshape(3, 3),
        np.array(row["frac_coords"]).reshape(-1, 3),
        np.array(row["numbers"], dtype=np.int64),
    )


class Records:
    """Records of some pools by chemical system, encoded when asked for."""

    def __init__(self, folder: Path, *, pools: list[str], near: float, max_atoms: int) -> None:
        self._rows: dict[System, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
        self.formed: list[ReferenceEntry] = []
        self.probes: dict[System, list[tuple[ReferenceEntry, float]]] = defaultdict(list)
        for source in SOURCES:
            names = (source.id, "numbers", "lattice", "frac_coords", source.hull, source.formation)
            table = pq.read_table(
                folder / f"{source.file}.parquet",
                columns=[name for name in names if name],
                filters=[("pool", "in", pools)] if source.pooled else None,
            )
            for row in table.to_pylist():
                name = f"{source.file} {row[source.id]}"
                above = None if source.hull is None else row[source.hull]
                if source.formation is not None and row[source.formation] is not None:
                    formed = ReferenceEntry(name, counts_of(row), row[source.formation])
                    self.formed.append(formed)
                    if above is not None:
                        self.probes[formed.system].append((formed, above))
                if (above is None or above <= near) and len(row["numbers"]) <= max_atoms:
                    self._rows[frozenset(row["numbers"])].append((name, row))

    @property
    def systems(self) -> frozenset[System]:
        return frozenset(self._rows)

    def __call__(self, system: System) -> list[tuple[str, Crystal]]:
        found = []
        for name, row in self._rows[system]:
            try:
                found.append((name, encode(cell_of(row)).crystal))
            except NucleateError as error:
                print(f"{name} left out: {error}")
        return found


class Verification:
    """Whether the records hold all phases that matter in a system, by DFT energies alone."""

    def __init__(self, records: Records) -> None:
        elements = {z for entry in records.formed for z in entry.system}
        zeros = [ReferenceEntry(f"element {z}", ((z, 1),), 0.0) for z in sorted(elements)]
        self._hull = ReferenceHull(FixedEntries([*records.formed, *zeros]))
        self._probes = records.probes

    def deficit_at(self, counts: dict[int, int]) -> float:
        """The same at a composition: of the records of its reduced formula; infinite without one."""
        same = [(e, given) for e, given in self._probes.get(frozenset(counts), []) if is_multiple(e, counts)]
        return max((given - self._own(entry) for entry, given in same), default=float("inf"))

    def _own(self, entry: ReferenceEntry) -> float:
        """Energy of a record above the hull of all records' DFT energies, eV/atom."""
        own = self._hull.place(dict(entry.composition), entry.energy_per_atom).energy_above_hull
        return 0.0 if own is None else own

    def deficit(self, system: System) -> float:
        """Largest given minus own DFT energy above hull in a system, eV/atom; infinite without a record of it."""
        if system not in self._probes:
            return float("inf")
        largest = 0.0
        for part, probes in self._probes.items():
            if part <= system and len(part) > 1:
                for entry, given in probes:
                    largest = max(largest, given - self._own(entry))
        return largest

    def above(self, counts: dict[int, int], formation_energy: float | None) -> float | None:
        """A formation energy above the hull of the records' DFT energies, eV/atom."""
        if formation_energy is None:
            return None
        return self._hull.place(counts, formation_energy).energy_above_hull


def is_multiple(entry: ReferenceEntry, counts: dict[int, int]) -> bool:
    """Whether an entry has the reduced formula of these counts."""
    total, own = sum(counts.values()), sum(n for _, n in entry.composition)
    return all(n * total == counts.get(z, 0) * own for z, n in entry.composition)


def counts_of(row: dict[str, Any]) -> tuple[tuple[int, int], ...]:
    return tuple(sorted(Counter(row["numbers"]).items()))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--pools",
        nargs="+",
        choices=POOLS,
        default=["train", "val"],
        help="of the records; the formulas of test are missing in all pools but test and excluded",
    )
    parser.add_argument("--near", type=float, default=0.15, help="eV/atom above the given DFT hull")
    parser.add_argument("--window", type=float, default=0.0, help="relax records this near our hull, eV/atom")
    parser.add_argument("--max-atoms", type=int, default=100)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")

    table = pq.read_table(arguments.data / "peer_samples.parquet").to_pylist()
    samples = [row for row in table if row["method"].startswith("FlowMM") and row["chgnet_ehull"] is not None]
    rng = np.random.default_rng(arguments.seed)
    samples = [samples[i] for i in rng.permutation(len(samples))[: arguments.count]]

    potential = CHGNetPotential()
    cache = ResultCache(arguments.cache)
    elements = ElementReferences(potential, cache=cache)
    records = Records(
        arguments.data, pools=arguments.pools, near=arguments.near, max_atoms=arguments.max_atoms
    )
    computed = ComputedEntries(
        records.systems,
        records,
        elements=elements,
        potential=potential,
        cache=cache,
        window=arguments.window,
    )
    hull = ReferenceHull(JoinedEntries(elements, computed))
    verification = Verification(records)
    evaluations = evaluate_each(potential, [cell_of(row) for row in samples])
    rows = []
    for sample, evaluation in zip(samples, evaluations):
        numbers = sample["numbers"]
        counts = {z: numbers.count(z) for z in sorted(set(numbers))}
        place = hull.place(counts, evaluation.energy / len(numbers))
        rows.append(
            {
                "sample": sample["sample_index"],
                "theirs": sample["chgnet_ehull"],
                "theirs_corrected": sample["chgnet_ehull_corrected"],
                "ours": place.energy_above_hull,
                "formation_energy": place.formation_energy,
                "above_dft_hull": verification.above(counts, place.formation_energy),
                "known": place.is_known,
                "covered": place.completeness.covered,
                "elements": len(counts),
                "deficit": verification.deficit(frozenset(counts)),
                "deficit_at": verification.deficit_at(counts),
                "problem": evaluation.problem,
            }
        )
        if len(rows) % 20 == 0:
            print(f"{len(rows)} of {len(samples)}", flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1))
    report(rows)


def is_lower(ours: float | None, theirs: float | None) -> bool:
    """Whether an energy above hull (0 where negative, as theirs is) is lower than theirs by more than ``LOWER``."""
    return ours is not None and theirs is not None and max(ours, 0.0) < theirs - LOWER


def report(rows: list[dict[str, Any]]) -> None:
    known = [row for row in rows if row["known"]]
    print(f"\n{len(known)} of {len(rows)} samples have a known hull")
    print("samples                           n   Spearman   ours - theirs (eV/atom): median, 10 %, 90 %")
    sets = {
        "all": known,
        "all subsystems covered": [row for row in known if row["covered"] == 1],
        "record of the formula": [row for row in known if row["deficit_at"] < float("inf")],
        "verified at formula": [row for row in known if row["deficit_at"] <= VERIFIED],
        "verified system": [row for row in known if row["deficit"] <= VERIFIED],
        "not verified system": [row for row in known if row["deficit"] > VERIFIED],
    }
    for which in ("theirs", "theirs_corrected"):
        for name, chosen in sets.items():
            pairs = np.array(
                [(row["ours"], row[which]) for row in chosen if row[which] is not None], dtype=float
            )
            if len(pairs) < 5:
                continue
            ours, theirs = pairs.T
            floored = np.maximum(ours, 0.0) if which == "theirs" else ours
            low, middle, high = np.percentile(floored - theirs, [10, 50, 90])
            print(
                f"{which:16s} {name:22s} {len(pairs):4d}   {spearmanr(floored, theirs).statistic:8.3f}   "
                f"{middle:9.4f} {low:9.4f} {high:9.4f}"
            )
    for name, chosen in sets.items():
        lower = [row for row in chosen if is_lower(row["ours"], row["theirs"])]
        by_dft = [row for row in lower if is_lower(row["above_dft_hull"], row["theirs"])]
        print(
            f"{name}: {len(lower)} of {len(chosen)} lower than theirs by more than {LOWER} eV/atom, {len(by_dft)} of "
            "them also above the hull of the same records' DFT energies"
        )


if __name__ == "__main__":
    main()
