"""De novo crystals of each source, before any rejection, against a held-out sample of that source.

For every ``--source`` crystals are asked for with that source's token and nothing else. Structural and compositional
validity, P1, distances of space groups, Wasserstein distances of density and of the number of elements, uniqueness and
novelty; beside each the value of a sample of the training crystals of that source, and the ratio of the two. Held out
is the pool ``val`` of MP-20 (``--pool test`` is for the final table of a release); the other sources have none, so that
one random half of their training pool stands for it and the other half for the training sample. ``--source any`` asks
for no source, beside the halves of a sample of all training pools together.

    python benchmarks/de_novo.py --data DATA --work RUN -n 10000 --source mp_20 --workers 2 --out de_novo.json

Crystals and what was found of them are kept below ``--work``: the same command goes on where it stopped, and one with a
larger ``-n`` adds to them.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

import nucleate
from data_pools import SOURCES, mixed_crystals, pool_crystals, pool_store
from nucleate.crystal import Crystal
from nucleate.evaluation.composition_validity import smact_verdict
from nucleate.evaluation.run import evaluate
from nucleate.evaluation.settings import Settings
from nucleate.evaluation.space_group_distance import MEASURES, group_shares
from nucleate.evaluation.statistics import wilson_interval
from nucleate.evaluation.structure_validity import is_structurally_valid
from nucleate.evaluation.surroundings import surroundings
from nucleate.evaluation.symmetry_checks import find_moyopy
from nucleate.evaluation.wasserstein import expected_noise, wasserstein_distance
from nucleate.generation.checks import shortest_distances
from real_structures import describe_run, print_run, write_json
from resumable import settle_process
from sampling_options import add_sampling_options, sampling_settings, settings_label

SYMPREC = 0.1
"""Tolerance (Å) at which groups are looked for, as in the published comparisons of P1 shares."""

CHUNK = 250
ANY = "any"
"""No source asked for."""

LEAST_RATIO = 0.75
"""Distances below this share of the least distance of real crystals are called clashes."""


@dataclass(frozen=True)
class Making:
    """What a process makes: crystals of one source."""

    source: str
    n: int
    seed: int
    folder: Path
    weights: Path | None
    settings: dict[str, Any]


def make(making: Making) -> tuple[list[Crystal], float, float]:
    """(crystals, core seconds, wall seconds) of this process, loading left out; no time where they were there."""
    settle_process()
    warnings.filterwarnings("ignore")
    generator = nucleate.load(making.weights)
    core, wall = time.process_time(), time.perf_counter()
    made = generator.generate(
        nucleate.Condition(source=None if making.source == ANY else making.source),
        making.n,
        making.seed,
        out=making.folder,
        **making.settings,
    )
    return list(made.crystals), time.process_time() - core, time.perf_counter() - wall


def measure(crystals: Sequence[Crystal]) -> dict[str, np.ndarray]:
    """Numbers of each crystal that averages are taken of."""
    rows = []
    for crystal in crystals:
        cell, counts = crystal.unit_cell("primitive"), crystal.composition
        _, ratio = shortest_distances(crystal)
        rows.append(
            (
                is_structurally_valid(cell, surroundings(cell)),
                smact_verdict(counts).valid,
                find_moyopy(cell, SYMPREC).number or 1,
                crystal.density,
                len(counts),
                crystal.num_atoms_primitive,
                ratio,
            )
        )
    names = ("structure", "composition", "group", "density", "num_elements", "num_atoms", "distance_ratio")
    return {name: np.array(column) for name, column in zip(names, zip(*rows))}


def measured(crystals: list[Crystal], path: Path, pool: Any) -> dict[str, np.ndarray]:
    """``measure`` of all crystals, kept in a file."""
    if path.exists():
        return dict(np.load(path))
    chunks = [crystals[first : first + CHUNK] for first in range(0, len(crystals), CHUNK)]
    parts = pool.map(measure, chunks, chunksize=1)
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    with path.open("wb") as stream:
        np.savez(stream, **arrays)
    return arrays


def real_samples(
    data: Path, source: str, pool: str, n: int, seed: int
) -> tuple[list[Crystal], list[Crystal], str]:
    """(training sample, held-out sample, what is held out) of a source."""
    if source == "mp_20":
        train = pool_crystals(data, source, "train", n=n, seed=seed)
        return (
            train,
            pool_crystals(data, source, pool, n=n, seed=seed),
            f"pool {pool} of MP-20, of novelty pool val",
        )
    if source == ANY:
        both, where = mixed_crystals(data, n=2 * n, seed=seed), "all pools train"
    else:
        both = pool_crystals(data, source, "train", n=2 * n, seed=seed)
        where = f"the pool train of {source}"
    half = len(both) // 2
    return both[:half], both[half:], f"a random half of {where}, the other half beside ours"


def compared(
    ours: dict[str, np.ndarray], train: dict[str, np.ndarray], held_out: dict[str, np.ndarray]
) -> dict:
    """Every figure of our crystals, of the training sample and of the held-out one."""
    figures: dict[str, Any] = {}
    for name, flags in (
        ("structural_validity", "structure"),
        ("compositional_validity", "composition"),
        ("p1_share", "group"),
        ("clash_share", "distance_ratio"),
    ):
        row: dict[str, Any] = {}
        for who, sample in (("ours", ours), ("train", train), ("held_out", held_out)):
            values = sample[flags]
            hits = {"group": values == 1, "distance_ratio": values < LEAST_RATIO}.get(
                flags, values.astype(bool)
            )
            row[who] = float(hits.mean())
            if who == "ours":
                row["ci95"] = wilson_interval(int(hits.sum()), len(hits))
        figures[name] = row
    for measure_ in MEASURES:
        target = group_shares(held_out["group"].astype(int))
        both = [measure_.distance(group_shares(s["group"].astype(int)), target) for s in (ours, train)]
        figures[measure_.name] = {"ours": both[0], "train": both[1], "ratio": both[0] / both[1]}
    for quantity in ("density", "num_elements", "num_atoms"):
        target = held_out[quantity].astype(float)
        both = [wasserstein_distance(s[quantity].astype(float), target) for s in (ours, train)]
        figures[f"w_{quantity}"] = {
            "ours": both[0],
            "train": both[1],
            "ratio": both[0] / both[1],
            "perfect_sample": expected_noise(target, len(ours[quantity])),
        }
    return figures


def novelty(crystals: list[Crystal], folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Uniqueness in the set and novelty against the train pools of all sources, with those of the pool val of MP-20."""
    reference = pool_store(options.data, options.work, train=tuple(SOURCES))
    report = evaluate(
        [crystal.unit_cell("primitive") for crystal in crystals],
        reference,
        out=folder,
        metrics=["novelty"],
        settings=Settings(reference_sample=min(len(crystals), 1000)),
        seed=options.seed,
        cache=options.work / "cache",
    )
    return {
        name: {"ours": report[name].value, "ci95": report[name].ci95, "held_out": report[name].reference}
        for name in ("uniqueness", "novelty", "unique_and_novel")
    }


def run_source(source: str, options: argparse.Namespace, pool: Any) -> dict[str, Any]:
    """All figures of one source."""
    settings = sampling_settings(options)
    digest = nucleate.load(options.weights).digest[:12]
    folder = options.work / f"de_novo-{source}-{digest}-{options.seed}-{settings_label(settings)}"
    folder.mkdir(parents=True, exist_ok=True)
    sizes = [len(part) for part in np.array_split(np.arange(options.n), options.workers)]
    makings = [
        Making(
            source,
            size,
            options.seed + 1000 * i,
            folder / f"part-{i}-of-{len(sizes)}",
            options.weights,
            settings,
        )
        for i, size in enumerate(sizes)
        if size
    ]
    parts = pool.map(make, makings, chunksize=1)
    crystals = [crystal for made, _, _ in parts for crystal in made]
    cost_file = folder / f"cost-{options.workers}.json"
    spent = {"core": sum(core for _, core, _ in parts), "wall": max(wall for _, _, wall in parts)}
    before = (
        json.loads(cost_file.read_text()) if cost_file.exists() else {"crystals": 0, "core": 0.0, "wall": 0.0}
    )
    if len(crystals) > before["crystals"]:  # reading what is there costs nothing worth telling
        before = {
            "crystals": len(crystals),
            **{name: before[name] + seconds for name, seconds in spent.items()},
        }
        write_json(cost_file, before)
    ours = measured(crystals, folder / f"measured-{options.workers}-{options.n}.npz", pool)
    train_crystals, held_out_crystals, rule = real_samples(
        options.data, source, options.pool, options.n, options.seed
    )
    train = measured(train_crystals, options.work / f"train-{source}-{options.n}-{options.seed}.npz", pool)
    held_out = measured(
        held_out_crystals, options.work / f"{options.pool}-{source}-{options.n}-{options.seed}.npz", pool
    )
    figures = compared(ours, train, held_out)
    if options.novelty:
        figures |= novelty(crystals, folder / f"novelty-{options.workers}-{options.n}", options)
    sizes_of = {"ours": len(crystals), "train": len(train_crystals), "held_out": len(held_out_crystals)}
    per_1000 = {f"{name}_seconds_per_1000": 1000 * before[name] / before["crystals"] for name in spent}
    return {"weights": digest, "held_out": rule, "sizes": sizes_of, "figures": figures, "cost": per_1000}


def show(source: str, found: dict[str, Any]) -> None:
    """The figures of a source as lines."""
    sizes = found["sizes"]
    print(
        f"{source}: {sizes['ours']:,} crystals, nothing rejected, weights {found['weights']}; beside them "
        f"{sizes['train']:,} training and {sizes['held_out']:,} held-out crystals ({found['held_out']})"
    )
    print(f"  {'':24s}{'ours':>10s}{'training':>10s}{'held-out':>10s}{'ratio':>8s}")
    for name, row in found["figures"].items():
        share = "ratio" not in row
        numbers = [row.get(who) for who in ("ours", "train", "held_out")]
        cells = ["" if v is None else (f"{100 * v:.2f} %" if share else f"{v:.4f}") for v in numbers]
        print(
            f"  {name:24s}" + "".join(f"{c:>10s}" for c in cells) + ("" if share else f"{row['ratio']:8.2f}")
        )
    cost = found["cost"]
    print(
        f"  1,000 crystals: {cost['core_seconds_per_1000']:.1f} s of one core, {cost['wall_seconds_per_1000']:.1f} s "
        "by the clock here (loading the weights left out)",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("-n", type=int, default=10_000, help="crystals of each source")
    parser.add_argument(
        "--source", action="append", choices=(*SOURCES, ANY), help="may be repeated; mp_20 by default"
    )
    parser.add_argument("--pool", choices=("val", "test"), default="val", help="of MP-20, held out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", type=Path)
    add_sampling_options(parser)
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--novelty", action="store_true", help="uniqueness and novelty as well")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.pool == "test" and set(options.source or ()) - {"mp_20"}:
        parser.error("--pool test is of MP-20 alone: leave out the other sources")
    run = describe_run(**vars(options))
    print_run(run)
    figures = {}
    with get_context("spawn").Pool(options.workers) as pool:
        for source in options.source or ["mp_20"]:
            figures[source] = run_source(source, options, pool)
            show(source, figures[source])
            write_json(options.out, {"run": run, "figures": figures})


if __name__ == "__main__":
    main()
