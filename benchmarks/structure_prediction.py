"""Structure prediction from the composition alone: match rates of one sample, of the best of k, and of one chosen of k.

Compositions with their number of atoms per primitive cell come from the pool ``val`` of MP-20; space group, positions
and geometry are sampled. Matching is that of ``nucleate.evaluation`` (pymatgen's StructureMatcher, ltol 0.3, stol 0.5,
angle 10); rms displacements are means over all compositions, unmatched ones counted at 0.5. One of the k samples is
also chosen without knowing the answer: by the generator's denoising error, by the template drawn most often and in it
the least error, and with ``--energies`` by CHGNet's energy as sampled. With ``--ranked`` the k samples are on the k
most frequent templates (of as many draws as it says), and the first of them is the answer.

Beside it: random symmetric crystals of the same composition (a group of a training crystal, expected volume), and the
records of the training pools with the same formula, which is what copying would score.

    python benchmarks/structure_prediction.py --data DATA --work RUN -n 200 -k 20 --energies --out csp.json

Finished compositions are kept in ``--work``; the same command, or one with a larger ``-n``, goes on where it stopped.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import nucleate
from data_pools import SOURCES, open_pool_store, pool_crystals
from nucleate.crystal import Crystal
from nucleate.data import Store
from nucleate.energetics.named_potentials import load_potential
from nucleate.energetics.potential import evaluate_each
from nucleate.errors import ConfigError, InvalidStructureError
from nucleate.evaluation.matcher import Matcher
from nucleate.evaluation.random_symmetry import random_symmetric_crystal
from nucleate.evaluation.reduced_cell import reduce_cell
from nucleate.evaluation.statistics import wilson_interval
from nucleate.generation.condition import Condition
from nucleate.physics import volume_per_atom
from real_structures import describe_run, print_run, write_json
from resumable import generator, results
from sampling_options import add_sampling_options, sampling_settings, settings_label

STOL = 0.5
MATCHER = Matcher(0.3, STOL, 10.0)
FREE = [(0, 0), (1, 1), (2, 3), (4, 5), (6, 8), (9, 999)]
SHARE_ENERGY = 0.05
"""How much energy per atom (eV) a template that is e times as frequent makes up for."""
CHOICES = {
    "first": "the first crystal, on the most frequent template (--ranked)",
    "error": "least denoising error",
    "template": "most frequent template, in it the least denoising error",
    "energy": "lowest CHGNet energy as sampled",
    "both": f"lowest CHGNet energy as sampled less {SHARE_ENERGY} eV/atom ln(share of the template) (--ranked)",
}


def rms_to(target: Crystal, guesses: list[Crystal]) -> list[float | None]:
    """The rms displacement of each guess from the target, None where it does not match."""
    truth = reduce_cell(target.unit_cell("primitive"))
    found: list[float | None] = []
    for guess in guesses:
        try:
            match = MATCHER.best_match(reduce_cell(guess.unit_cell("primitive")), truth)
        except InvalidStructureError:  # a cell that cannot be reduced matches nothing
            match = None
        found.append(None if match is None else match.rms)
    return found


@cache
def potential() -> Any:
    return load_potential("chgnet")


def predict(job: dict[str, Any]) -> dict[str, Any]:
    """Samples of one composition, held against the crystal it comes from, and random crystals likewise."""
    target: Crystal = job["target"]
    n = target.num_atoms_primitive
    made = generator().generate(
        Condition(formula=target.formula, num_atoms=(n, n), source="mp_20"),
        job["k"],
        job["seed"],
        **job["sampling"],
    )
    energies: list[float | None] = [None] * len(made)
    if job["energies"]:
        found = evaluate_each(potential(), [crystal.unit_cell("primitive") for crystal in made])
        energies = [None if e.problem else e.energy / n for e in found]
    return {
        "rms": rms_to(target, list(made.crystals)),
        "errors": [row.denoising_error for row in made.rows],
        "templates": [row.prototype_key for row in made.rows],
        "shares": [row.template_share for row in made.rows],
        "energies": energies,
        "true_template": target.prototype_key,
        "random": rms_to(target, random_crystals(target, job)),
    }


def random_crystals(target: Crystal, job: dict[str, Any]) -> list[Crystal]:
    """Random symmetric crystals of the target's composition in groups of training crystals."""
    volume = volume_per_atom(target.composition).mean
    rng = np.random.default_rng([job["seed"], 1])
    found: list[Crystal] = []
    for _ in range(job["k"]):
        try:
            found.append(
                random_symmetric_crystal(
                    target.composition, groups=job["groups"], volume_per_atom=volume, rng=rng
                )
            )
        except ConfigError:  # no group drawn holds the composition: a try without a crystal
            continue
    return found


def copies_from(store: Store, targets: list[Crystal]) -> list[list[float | None]]:
    """The rms displacement of every training record with a target's formula from that target."""
    train = store.split("train")
    rows: dict[str, list[int]] = defaultdict(list)
    index = 0
    for batch in train.iter_batches(["formula"]):
        for formula in batch.column(0).to_pylist():
            rows[formula].append(index)
            index += 1
    return [rms_to(target, [train.crystal(i) for i in rows.get(target.formula, [])]) for target in targets]


def chosen(result: dict[str, Any], how: str) -> int | None:
    """Which of the samples is the answer."""
    samples = range(len(result["rms"]))
    if how == "first":
        return 0
    if how in ("energy", "both"):
        costs = {i: energy for i, energy in enumerate(result["energies"]) if energy is not None}
        if how == "both":
            costs = {i: cost - SHARE_ENERGY * math.log(result["shares"][i]) for i, cost in costs.items()}
        return min(costs, key=costs.__getitem__, default=None)
    if how == "template":
        counts = Counter(result["templates"])
        most = max(counts.values())
        samples = [i for i in samples if counts[result["templates"][i]] == most]  # type: ignore[assignment]
    return min(samples, key=lambda i: result["errors"][i])


def scored(rms: list[list[float | None]]) -> dict[str, Any]:
    """Match rates and rms displacements of lists of tries, one list per composition."""
    tries = [[STOL if value is None else value for value in row] or [STOL] for row in rms]
    hits = [[value is not None for value in row] or [False] for row in rms]
    best = [any(row) for row in hits]
    return {
        "n": len(rms),
        "one_sample": float(np.mean([np.mean(row) for row in hits])),
        "one_sample_rmse": float(np.mean([np.mean(row) for row in tries])),
        "best": float(np.mean(best)),
        "best_ci95": wilson_interval(sum(best), len(best)),
        "best_rmse": float(np.mean([min(row) for row in tries])),
    }


def figures_of(
    done: list[dict[str, Any]], copies: list[list[float | None]], ways: list[str]
) -> dict[str, Any]:
    """Every figure over some compositions."""
    figures = {
        "ours": scored([result["rms"] for result in done]),
        "random": scored([result["random"] for result in done]),
        "copying": scored(copies),
        "true_template_per_sample": float(
            np.mean([np.mean([t == r["true_template"] for t in r["templates"]]) for r in done])
        ),
        "true_template_among_all": float(np.mean([r["true_template"] in r["templates"] for r in done])),
    }
    for how in ways:
        picks = [chosen(result, how) for result in done]
        figures[how] = scored([[None if i is None else r["rms"][i]] for r, i in zip(done, picks)])
    return figures


def strata(targets: list[Crystal]) -> dict[str, list[int]]:
    """Compositions by number of elements and by free coordinates of the real crystal."""
    groups: dict[str, list[int]] = {"all": list(range(len(targets)))}
    for count in sorted({len(t.composition) for t in targets}):
        groups[f"{count} elements"] = [i for i, t in enumerate(targets) if len(t.composition) == count]
    for low, high in FREE:
        name = (
            f"{low} free"
            if low == high
            else f"{low} to {high} free"
            if high < 999
            else f"{low} and more free"
        )
        groups[name] = [i for i, t in enumerate(targets) if low <= t.num_free_coords <= high]
    return {name: members for name, members in groups.items() if members}


def show(figures: dict[str, dict[str, Any]], k: int, ways: list[str]) -> None:
    print(f"{'':18s}{'n':>5s} |{'one':>7s}{'rmse':>7s}{'best':>7s}{'rmse':>7s} |"
          + "".join(f"{how:>9s}" for how in ways)
          + f" |{'random 1':>9s}{f'of {k}':>7s} |{'copying':>8s} | true template 1, of {k}")  # fmt: skip
    for name, f in figures.items():
        ours = f["ours"]
        print(
            f"{name:18s}{ours['n']:5d} |{100 * ours['one_sample']:7.1f}{ours['one_sample_rmse']:7.3f}"
            f"{100 * ours['best']:7.1f}{ours['best_rmse']:7.3f} |"
            + "".join(f"{100 * f[how]['one_sample']:9.1f}" for how in ways)
            + f" |{100 * f['random']['one_sample']:9.1f}{100 * f['random']['best']:7.1f} |"
            f"{100 * f['copying']['best']:8.1f} | {100 * f['true_template_per_sample']:5.1f} "
            f"{100 * f['true_template_among_all']:5.1f}"
        )
    for how in ways:
        print(f"{how}: {CHOICES[how]}, match rate of one answer chosen from {k} samples")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("-n", type=int, default=200, help="compositions")
    parser.add_argument("-k", type=int, default=20, help="samples of each")
    parser.add_argument("--pool", choices=("val", "test"), default="val")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", type=Path)
    add_sampling_options(parser)
    parser.add_argument("--energies", action="store_true", help="choose by CHGNet's energy as well")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    run = describe_run(**vars(options))
    print_run(run)
    torch.set_num_threads(1)
    targets = pool_crystals(options.data, "mp_20", options.pool, n=options.n, seed=options.seed)
    store = open_pool_store(options.data, options.work, train=tuple(SOURCES))
    trained = store.split("train")
    rows = np.random.default_rng(options.seed).permutation(len(trained))[:2000]
    groups = [trained.crystal(int(row)).space_group_number for row in rows]
    sampling = sampling_settings(options)
    jobs = [
        (
            i,
            {
                "target": target,
                "k": options.k,
                "seed": options.seed + i,
                "sampling": sampling,
                "energies": options.energies,
                "groups": groups,
            },
        )
        for i, target in enumerate(targets)
    ]
    digest = nucleate.load(options.weights).digest[:12]
    energies = "-energies" if options.energies else ""
    label = f"{options.pool}-{digest}-{options.k}-{settings_label(sampling)}-{options.seed}{energies}"
    path = options.work / f"csp-{label}.jsonl"
    done = list(results(predict, jobs, path, weights=options.weights, workers=options.workers))
    done.sort(key=lambda result: result["number"])
    copies = copies_from(store, targets)
    ways = ["first"] if options.ranked else ["template"]
    ways += ["error", *(["energy"] if options.energies else [])]
    ways += ["both"] if options.ranked and options.energies else []
    figures = {
        name: figures_of([done[i] for i in members], [copies[i] for i in members], ways)
        for name, members in strata(targets).items()
    }
    print(
        f"{len(targets)} compositions of MP-20 {options.pool}, {options.k} samples each, weights {digest}; shares in %"
    )
    show(figures, options.k, ways)
    write_json(options.out, {"run": run, "weights": digest, "figures": figures})


if __name__ == "__main__":
    main()
