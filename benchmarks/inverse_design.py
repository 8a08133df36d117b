"""Crystals with a wanted property: how many have it, by the weights and by judges that never saw them.

For every target n crystals (``generate --property``), and as many that nothing is asked of. The judges:

- formation energy: CHGNet 0.3.0 on the crystal as it was made, less its energies of the elements (trained on other
  calculations of the Materials Project, with labels of energies and forces);
- band gap: gradient boosting on the mean, spread, least and most of the element vectors and the volume per atom,
  trained on the pool ``train`` of JARVIS, whose gaps are of another functional and which the head has not seen.

Beside them stand the same shares of a held-out sample (pool ``val`` of MP-20), whose own values are known: how often
the property occurs, and how well head and judges read it there.

    python benchmarks/inverse_design.py --data DATA -n 60 --out inverse_design.json
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from sklearn.ensemble import HistGradientBoostingRegressor

import nucleate
from data_pools import cells_of, encoded, pool_table, sampled_rows
from nucleate.crystal import Crystal
from nucleate.energetics.element_references import ElementReferences
from nucleate.energetics.named_potentials import load_potential
from nucleate.energetics.potential import evaluate_each
from nucleate.generation import Condition
from nucleate.generation.property_targets import PropertyTarget, parse_property, property_targets
from nucleate.models.checkpoint import default_weights
from nucleate.physics.elements import element_features
from nucleate.prediction import PropertyReader
from real_structures import describe_run, write_json

TARGETS = (
    "band_gap=1..2",
    "band_gap=2.5..3.5",
    "band_gap=4.5..",
    "formation_energy_per_atom=..-3",
    "formation_energy_per_atom=-2..-1.5",
    "formation_energy_per_atom=0.1..",
)
Judge = Callable[[Sequence[Crystal]], np.ndarray]


def chgnet_formation_energies(crystals: Sequence[Crystal]) -> np.ndarray:
    """eV/atom; NaN where an energy is missing."""
    potential = load_potential("chgnet")
    references = ElementReferences(potential)

    def of_element(z: int) -> float:
        entries = references.entries(frozenset((z,)))
        return entries[0].energy_per_atom if entries else np.nan

    cells = [crystal.unit_cell("primitive") for crystal in crystals]
    energies = [found.energy for found in evaluate_each(potential, cells)]
    return np.array(
        [
            (energy - sum(n * of_element(z) for z, n in crystal.composition.items()))
            / crystal.num_atoms_primitive
            for energy, crystal in zip(energies, crystals, strict=True)
        ]
    )


def composition_features(compositions: Sequence[dict[int, int]], volumes: Sequence[float]) -> np.ndarray:
    """Mean, spread, least and most of the element vectors, and the volume per atom in Å^3."""
    rows = []
    for counts, volume in zip(compositions, volumes, strict=True):
        vectors, share = (
            np.asarray(element_features(list(counts))),
            np.array(list(counts.values()), dtype=float),
        )
        share /= share.sum()
        mean = share @ vectors
        spread = np.sqrt(np.maximum(share @ vectors**2 - mean**2, 0))
        rows.append(np.concatenate([mean, spread, vectors.min(axis=0), vectors.max(axis=0), [volume]]))
    return np.array(rows)


def jarvis_gaps(data: Path, seed: int) -> Judge:
    """A judge of band gaps that has seen JARVIS only."""
    table = pq.read_table(
        data / "jarvis_dft3d.parquet",
        columns=["pool", "numbers", "lattice", "frac_coords", "optb88vdw_bandgap"],
    )
    table = table.filter(pc.and_(pc.equal(table["pool"], "train"), pc.is_valid(table["optb88vdw_bandgap"])))
    cells = cells_of(table)
    counts = [dict(zip(*np.unique(cell.atomic_numbers, return_counts=True), strict=True)) for cell in cells]
    features = composition_features(counts, [cell.volume / cell.num_atoms for cell in cells])
    model = HistGradientBoostingRegressor(max_iter=600, learning_rate=0.06, random_state=seed)
    model.fit(features, np.array(table["optb88vdw_bandgap"].to_pylist(), dtype=float))

    def judge(crystals: Sequence[Crystal]) -> np.ndarray:
        found = composition_features([c.composition for c in crystals], [c.volume_per_atom for c in crystals])
        return np.asarray(model.predict(found))

    return judge


def share(target: PropertyTarget, values: np.ndarray) -> float:
    """Of the values, those inside; NaN counts as outside."""
    return float(np.mean([target.low <= value <= target.high for value in values]))


def held_out(data: Path, n: int, seed: int) -> tuple[list[Crystal], dict[str, np.ndarray]]:
    """Crystals of the validation pool and their own values."""
    names = ("band_gap", "formation_energy_per_atom")
    table = sampled_rows(pool_table(data, "mp_20", "val", more=names), n, seed)
    crystals = encoded(table)
    assert len(crystals) == len(table), "the values would belong to other crystals"
    return crystals, {name: np.array(table[name].to_pylist(), dtype=float) for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, default=None)
    parser.add_argument("-n", type=int, default=60, help="crystals for each target")
    parser.add_argument("--real", type=int, default=1390, help="held-out crystals")
    parser.add_argument("--candidates", type=int, default=None, help="most that are tried for each crystal")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--property", action="append", help="targets  [default: three of each property]")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    targets = [property_targets(dict([parse_property(text)]))[0] for text in options.property or TARGETS]
    generator = nucleate.load(options.weights)
    reader = PropertyReader.load(options.weights or default_weights())
    judges = {
        "band_gap": jarvis_gaps(options.data, options.seed),
        "formation_energy_per_atom": chgnet_formation_energies,
    }
    real, true = held_out(options.data, options.real, options.seed)
    read = reader.predict(real)
    judged = {name: judge(real) for name, judge in judges.items()}
    quality = {
        name: {
            "n": len(real),
            "mae_of_head": float(np.abs(read[name] - true[name]).mean()),
            "mae_of_judge": float(np.nanmean(np.abs(judged[name] - true[name]))),
            "mae_of_median": float(np.abs(true[name] - np.median(true[name])).mean()),
            "r2_of_head": float(1 - ((read[name] - true[name]) ** 2).mean() / true[name].var()),
            "r2_of_judge": float(1 - np.nanmean((judged[name] - true[name]) ** 2) / true[name].var()),
        }
        for name in judges
    }
    unasked = list(generator.generate(Condition(source="mp_20"), max(200, options.n), options.seed))
    unasked_judged = {name: judge(unasked) for name, judge in judges.items()}
    unasked_read = reader.predict(unasked)
    rows: list[dict[str, Any]] = []
    for target in targets:
        began = time.monotonic()
        made = generator.generate(
            Condition(source="mp_20", properties=(target,)),
            options.n,
            options.seed,
            candidates=options.candidates,
        )
        seconds = time.monotonic() - began
        said = np.array([row.predicted[target.name] for row in made.rows])
        found = judges[target.name](list(made))
        row = {
            "target": f"{target.name} {target.text}",
            "n": len(made),
            "within_as_read": share(target, said),
            "within_as_judged": share(target, found),
            "mean_as_judged": float(np.nanmean(found)),
            "unasked_as_read": share(target, unasked_read[target.name]),
            "unasked_as_judged": share(target, unasked_judged[target.name]),
            "unasked_n": len(unasked),
            "real": share(target, true[target.name]),
            "real_as_judged": share(target, judged[target.name]),
            "real_within_as_judged_where_true": share(
                target, judged[target.name][[target.low <= v <= target.high for v in true[target.name]]]
            ),
            "formulas": len({row.formula for row in made.rows}),
            "own_group": float(np.mean([row.space_group == row.space_group_asked for row in made.rows])),
            "distances_ok": float(np.mean([row.min_distance_ratio >= 1 for row in made.rows])),
            "charge_neutral": float(np.mean([row.charge_neutral for row in made.rows])),
            "seconds_per_crystal": seconds / len(made),
        }
        print(row, flush=True)
        rows.append(row)
    print(quality)
    run = describe_run(weights=generator.digest[:12], seed=options.seed, candidates=options.candidates)
    write_json(options.out, {**run, "quality": quality, "rows": rows})


if __name__ == "__main__":
    main()
