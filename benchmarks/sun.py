"""Stable, unique and novel crystals per thousand: ours, two published generators, random and held-out real crystals.

One run, one protocol, one hull. Reference and hull: the pools ``train`` of all five sources of the data folder (the
pool ``val`` of MP-20 is held out and scored beside every set); energies of crystals and of the hull are CHGNet's
after relaxation inside the symmetry (``nucleate.evaluation``, family ``stability``). Ours are asked for nothing but the
character of MP-20; the peers' are their published samples, FlowMM's already relaxed with CHGNet by its authors; random
ones have composition and group of training crystals of MP-20 (pyxtal).

    python benchmarks/sun.py --data DATA --work RUN -n 200 --out sun.json

Sets, energies and reports are kept below ``--work``: the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

import nucleate
from data_pools import SOURCES, open_pool_store, pool_store
from evaluation_sets import iter_sets, note_of, write_set
from nucleate.data import Store
from nucleate.energetics.named_potentials import load_potential
from nucleate.evaluation.report import Report
from nucleate.evaluation.run import evaluate
from nucleate.evaluation.settings import Settings
from real_structures import describe_run, print_run, write_json
from sampling_options import add_sampling_options, sampling_settings, settings_label

SETS = ("nucleate", "CrystalFormer", "FlowMM", "random")
SHARES = (
    "uniqueness",
    "novelty",
    "unique_and_novel",
    "relaxation_converged",
    "stability_unknown",
    "hull_coverage",
)
SHARES += tuple(f"{name}_{t}" for name in ("stable", "sun", "ssun") for t in ("0", "0.08", "0.1"))
NUMBERS = ("energy_above_hull", "rmsd_to_relaxed")


def own_set(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Our crystals, as a folder of ``nucleate generate``, and the processor time they took."""
    generator = nucleate.load(options.weights)
    began = time.process_time()
    generator.generate(
        nucleate.Condition(source="mp_20"),
        options.n,
        options.seed,
        **sampling_settings(options),
        out=folder,
    )
    spent = time.process_time() - began
    costs = folder.parent / f"{folder.name}.json"
    if costs.exists():
        spent += json.loads(costs.read_text())["core_seconds"]
    write_json(costs, {"core_seconds": spent})
    return {
        "core_seconds": spent,
        "note": f"nucleate, weights {generator.digest[:12]}, {options.candidates} candidates, {options.restarts} "
        f"restarts, temperature {options.temperature}",
    }


def seconds_per_evaluation(store: Store, *, seed: int, count: int = 16) -> float:
    """Processor time of one energy with forces and stress, over some training crystals of MP-20."""
    potential = load_potential("chgnet")
    train = store.split("train")
    rows = np.random.default_rng(seed).permutation(len(train))[:count]
    cells = [train.crystal(int(row)).unit_cell("primitive") for row in rows]
    potential.evaluate(cells[:2])  # loads the potential
    began = time.process_time()
    potential.evaluate(cells)
    return (time.process_time() - began) / len(cells)


def figures_of(report: Report, made: dict[str, Any], *, per_evaluation: float) -> dict[str, Any]:
    """What the table shows of a set, held-out sample beside it, and what an hour of a core brings."""
    found = {name: report.metrics[name].to_json() for name in (*SHARES, *NUMBERS) if name in report.metrics}
    table = report.table
    evaluations = [n or 0 for n in table.column("relaxation_evaluations").to_pylist()]
    figures = {
        **made,
        "n": table.num_rows,
        "metrics": found,
        "evaluations_per_crystal": float(np.mean(evaluations)),
    }
    seconds = made.get("core_seconds")
    if seconds is not None and found["sun_0.1"]["value"] is not None:
        relaxing = per_evaluation * sum(evaluations)
        hits = found["sun_0.1"]["value"] * table.num_rows
        figures["sun_0.1_per_core_hour_of_generation"] = 3600 * hits / seconds
        figures["sun_0.1_per_core_hour_with_relaxation"] = 3600 * hits / (seconds + relaxing)
    return figures


ROWS = {
    "uniqueness": "unique, %",
    "novelty": "novel, %",
    "relaxation_converged": "relaxation converged, %",
    "stability_unknown": "stability unknown, %",
    "hull_coverage": "hull coverage, %",
    "stable_0": "stable at 0 eV/atom, %",
    "stable_0.1": "metastable at 0.1 eV/atom, %",
    "sun_0": "S.U.N. at 0, %",
    "sun_0.08": "S.U.N. at 0.08, %",
    "sun_0.1": "S.U.N. at 0.1, %",
    "ssun_0.1": "the same, symmetric, %",
    "energy_above_hull": "median energy above hull, eV/atom",
    "rmsd_to_relaxed": "RMSD to relaxed, Å",
}


def table_of(figures: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Header and rows: every set, the held-out sample last; shares in per cent."""
    names = list(figures)
    rows = [["", *(f"{name} ({figures[name]['n']})" for name in names), "held-out"]]
    for key, label in ROWS.items():
        metrics = [figures[name]["metrics"].get(key) for name in names]
        scale = 1.0 if key in NUMBERS else 100.0
        real = next((m["reference"] for m in metrics if m is not None and m["reference"] is not None), None)
        rows.append(
            [label, *(_written(m, scale) for m in metrics), "-" if real is None else f"{real * scale:.3g}"]
        )
    evaluations = [f"{figures[name]['evaluations_per_crystal']:.0f}" for name in names]
    return [*rows, ["evaluations per relaxation", *evaluations, "-"]]


def print_table(figures: dict[str, dict[str, Any]]) -> None:
    for row in table_of(figures):
        print(f"{row[0]:36s}" + "".join(f"{cell:>24s}" for cell in row[1:]))
    for name, figure in figures.items():
        if "sun_0.1_per_core_hour_of_generation" in figure:
            print(
                f"{name}: S.U.N. at 0.1 eV/atom per core-hour of generation "
                f"{figure['sun_0.1_per_core_hour_of_generation']:,.0f}, with relaxation "
                f"{figure['sun_0.1_per_core_hour_with_relaxation']:,.0f}"
            )
        print(f"{name}: {figure['note']}")


def markdown(figures: dict[str, dict[str, Any]]) -> str:
    header, *rows = table_of(figures)
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _written(metric: dict[str, Any] | None, scale: float) -> str:
    if metric is None or metric["value"] is None:
        return "-"
    text = f"{metric['value'] * scale:.3g}"
    if metric["ci95"] is not None:
        text += f" ({metric['ci95'][0] * scale:.3g} to {metric['ci95'][1] * scale:.3g})"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("-n", type=int, default=200, help="crystals per set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--weights", type=Path)
    add_sampling_options(parser)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--markdown", type=Path, help="the table as Markdown")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    run = describe_run(**vars(options))
    print_run(run)
    mp_20 = open_pool_store(options.data, options.work, train=("mp_20",))
    reference = pool_store(options.data, options.work, train=tuple(SOURCES))
    settings = Settings(reference_sample=options.n)
    folder = options.work / f"sun-{options.n}-{options.seed}"
    (folder / "sets").mkdir(parents=True, exist_ok=True)
    makers = dict(
        iter_sets(options.data, mp_20, n=options.n, seed=options.seed, candidates=options.candidates, only=[])
    )
    per_evaluation = seconds_per_evaluation(mp_20, seed=options.seed)
    print(f"CHGNet: {1000 * per_evaluation:.0f} ms of processor time per evaluation", flush=True)
    figures: dict[str, dict[str, Any]] = {}
    for name in options.sets.split(","):
        extra: dict[str, Any] = {}
        if name == "nucleate":
            digest = nucleate.load(options.weights).digest[:12]
            path = folder / "sets" / f"nucleate-{digest}-{settings_label(sampling_settings(options))}"
            extra = own_set(path, options)
        else:
            path = folder / "sets" / f"{name}.parquet"
            if not path.exists():
                write_set(path, makers[name]())
            extra["note"] = note_of(path)
        began = time.process_time()
        report = evaluate(
            path,
            reference,
            out=folder / "reports" / path.name.removesuffix(".parquet"),
            metrics=["novelty", "stability"],
            settings=settings,
            seed=options.seed,
            cache=options.work / "cache",
        )
        if report.problems:
            raise SystemExit(
                f"{name} could not be judged: {dict(report.problems)}; repeat the command to go on"
            )
        figures[name] = figures_of(report, extra, per_evaluation=per_evaluation)
        print(f"{name}: {time.process_time() - began:.0f} s of processor time", flush=True)
        write_json(options.out, {"run": run, "figures": figures})
    print_table(figures)
    if options.markdown:
        options.markdown.write_text(markdown(figures))
    write_json(options.out, {"run": run, "figures": figures})


if __name__ == "__main__":
    main()
