"""One table under one protocol: peers' samples, controls, real crystals and our own, through ``nucleate.evaluation``.

The reference is the part of MP-20 in the pools ``train`` and ``val`` of the data folder; the split ``val`` is held out
and what sets are compared with. Sets are made once from the seed, evaluations are kept and resumed: the same command
goes on where it stopped.

    python benchmarks/evaluation_table.py --data DATA --work RUN -n 300 --out docs/evaluation-table.md
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

import nucleate
from evaluation_sets import iter_sets, note_of, write_set
from nucleate.data import Store, build_store
from nucleate.evaluation.run import evaluate
from nucleate.evaluation.settings import Settings

COLUMNS = ["material_id", "numbers", "lattice", "frac_coords", "formation_energy_per_atom", "pool"]


@dataclass(frozen=True)
class Row:
    """A line of the table: key of the metric, what the reader is told, and how its number is written."""

    key: str
    name: str
    form: str = "share"


ROWS = (
    Row("structural_validity", "valid structure (0.5 Å), %"),
    Row("compositional_validity", "valid composition (SMACT), %"),
    Row("physical_validity", "passes every physical check, %"),
    Row("p1_share", "P1, %"),
    Row("space_group_chi2", "distance of space groups (chi-square)", "number"),
    Row("cov_recall", "COV-R, %"),
    Row("cov_precision", "COV-P, %"),
    Row("w_density", "W(density), g/cm³", "number"),
    Row("w_num_elements", "W(number of elements)", "number"),
    Row("w_num_atoms", "W(atoms per primitive cell)", "number"),
    Row("frechet_structure_extrapolated", "Fréchet, structure (extrapolated)", "number"),
    Row("frechet_composition_extrapolated", "Fréchet, composition (extrapolated)", "number"),
    Row("effective_elements", "effective number of elements", "count"),
    Row("effective_space_groups", "effective number of space groups", "count"),
    Row("effective_prototypes", "effective number of prototypes", "count"),
    Row("vendi_structure", "Vendi score, structure", "count"),
    Row("uniqueness", "unique, %"),
    Row("novelty", "novel, %"),
    Row("unique_and_novel", "unique and novel, %"),
    Row("relaxation_converged", "relaxation converged, %"),
    Row("energy_above_hull", "median energy above hull, eV/atom", "number"),
    Row("stable_0", "stable (0 eV/atom), %"),
    Row("stable_0.1", "metastable (0.1 eV/atom), %"),
    Row("sun_0.1", "metastable, unique, novel, %"),
    Row("ssun_0.1", "the same with symmetry, %"),
)


def reference_store(data: Path, work: Path) -> Store:
    """The store of MP-20's rows outside the test pool, split by pool."""
    folder = work / "reference"
    if not (folder / "manifest.json").exists():
        table = pq.read_table(data / "mp_20.parquet", columns=COLUMNS)
        table = table.filter(pc.not_equal(table["pool"], "test"))
        path = work / "mp_20.parquet"
        pq.write_table(table.rename_columns([*COLUMNS[:-1], "split"]), path)
        build_store(path, folder, split="given")
    return Store.open(folder)


def written(value: float | None, form: str) -> str:
    if value is None:
        return ""
    if form == "share":
        return f"{100 * value:.1f}"
    return f"{value:.3g}" if form == "number" else f"{value:.0f}"


def cell(metric: dict | None, form: str) -> str:
    """Value and half width of the interval."""
    if metric is None or metric["value"] is None:
        return "–"
    text = written(metric["value"], form)
    if metric["ci95"] is not None:
        half = (metric["ci95"][1] - metric["ci95"][0]) / 2
        text += f" ± {written(half, form)}"
    return text


def ceiling_sentence(novelty: dict | None) -> str:
    """How novel held-out crystals are against the rest of the reference."""
    if novelty is None or novelty["reference"] is None:
        return ""
    share = written(novelty["reference"], "share")
    return f"Against the training crystals alone {share} % of {novelty['reference_n']:,} held-out crystals are novel"


STABILITY = """
## Stability

`benchmarks/sun.py -n 100`: the same kinds of sets, relaxed with CHGNet inside their symmetry, against the hull of
CHGNet's energies of the training pools of all five sources; 95 % intervals. The hull lacks many compounds: compare
columns with each other only ([energetics](energetics.md)).

"""


def markdown(work: Path, names: list[str], metrics: list[str], n: int, seed: int, command: str) -> str:
    summaries = {name: json.loads((work / "reports" / name / "summary.json").read_text()) for name in names}
    about = next(iter(summaries.values()))["about"]
    reference = about["reference"]
    ceiling = ceiling_sentence(summaries[names[0]].get("novelty"))
    lines = [
        "# One table under one protocol",
        "",
        "Everything here was computed by `nucleate.evaluation` with the same settings and the same reference; what",
        "each line means, and what makes published values of one name incomparable, stands in [metrics](metrics.md).",
        "",
        f"- reference: MP-20 outside the test pool, {reference['num']:,} crystals; held out: {reference['held_out']}, "
        f"{reference['num_held_out']:,} crystals, almost all of two and three elements",
        f"- crystals per set: {n}; seed {seed}; metrics: {', '.join(metrics)}; nucleate {nucleate.__version__}; "
        f"{date.today().isoformat()}",
        "- ±: half of the 95 % interval; –: not measured",
        "- the peers were trained on all 27,136 training rows of MP-20, with up to seven elements; ours on the 8,802",
        "  of its rows in this reference and 26,640 crystals of other sources. A set that resembles all of MP-20 is",
        "  further from this held-out part in the number of elements than one that resembles this reference: compare",
        "  each with the column of the training crystals, and read no ranking into the distances of distributions",
        "- the held-out and the training crystals are in the reference, and so not novel by definition; the held-out",
        "  ones are also what the distances are measured from, so that the column of the training crystals is the",
        f"  ceiling. {ceiling}",
        "- FlowMM's samples are published after relaxation with CHGNet; the others are as sampled",
        "",
        "| | "
        + " | ".join(f"{name} ({summaries[name]['about']['crystals']['num']})" for name in names)
        + " |",
        "|---|" + "---|" * len(names),
    ]
    for row in ROWS:
        found = [summaries[name].get(row.key) for name in names]
        if any(metric is not None and metric["value"] is not None for metric in found):
            lines.append(f"| {row.name} | " + " | ".join(cell(metric, row.form) for metric in found) + " |")
    lines += ["", "The sets:", ""]
    lines += [f"- {name}: {note_of(work / 'sets' / f'{name}.parquet')}" for name in names]
    lines += ["", "Protocols, as they stand beside every number in `summary.json`:", ""]
    first = summaries[names[0]]
    lines += [f"- {row.name}: {first[row.key]['protocol']}" for row in ROWS if row.key in first]
    lines += ["", f"    {command}", ""]
    return "\n".join(lines).replace(str(work / "reference"), "the reference")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with mp_20 and peer_samples")
    parser.add_argument("--work", type=Path, required=True, help="folder for sets, stores and reports")
    parser.add_argument("-n", type=int, default=300, help="crystals per set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--candidates", type=int, default=1, help="geometries per crystal of our own generator"
    )
    parser.add_argument("--metrics", default="validity,symmetry,distribution,novelty")
    parser.add_argument(
        "--reference-sample", type=int, default=500, help="held-out crystals with fingerprints"
    )
    parser.add_argument("--sets", default="", help="only these, separated by commas")
    parser.add_argument("--stability", type=Path, help="the table that sun.py wrote with --markdown")
    parser.add_argument("--out", type=Path, help="Markdown file for the table")
    args = parser.parse_args()
    (args.work / "sets").mkdir(parents=True, exist_ok=True)
    store = reference_store(args.data, args.work)
    metrics = args.metrics.split(",")
    settings = Settings(reference_sample=args.reference_sample)
    names = []
    only = [name for name in args.sets.split(",") if name]
    for name, maker in iter_sets(
        args.data, store, n=args.n, seed=args.seed, candidates=args.candidates, only=only
    ):
        began = time.monotonic()
        path = args.work / "sets" / f"{name}.parquet"
        if not path.exists():
            write_set(path, maker())
        report = evaluate(
            path,
            args.work / "reference",
            out=args.work / "reports" / name,
            metrics=metrics,
            settings=settings,
            seed=args.seed,
            cache=args.work / "cache",
        )
        names.append(name)
        print(
            f"{name}: {time.monotonic() - began:.0f} s; problems: {dict(report.problems) or 'none'}",
            flush=True,
        )
    command = f"python benchmarks/evaluation_table.py -n {args.n} --seed {args.seed} --metrics {args.metrics}"
    text = markdown(args.work, names, metrics, args.n, args.seed, f"{command} --data DATA --work RUN")
    if args.stability:
        head, mark, tail = text.partition("\nThe sets:\n")
        text = head + STABILITY + args.stability.read_text() + mark + tail
    if args.out is None:
        sys.stdout.write(text)
    else:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
