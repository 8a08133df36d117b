"""Encode every structure of a data folder and check each encoding against programs that nobody here wrote.

Two passes, each with one JSON line per structure under --work, so that a stopped run goes on where it was:

1. ``encode``: encode; group against an independent moyopy call; decoded cell against the original (atom by
   atom, composition, volume per atom); group of the decoded crystal found again by moyopy and spglib at
   symprec 1e-4.
2. ``match``: pymatgen's StructureMatcher, defaults, original against both the decoded cell and the encoded
   crystal. Much slower, hence a sample per file unless --match-all.

Example: python benchmarks/encode_real.py --data ../shared/data --work out/encode_real \
    --match-all --out encode_real.json
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import moyopy
import numpy as np
import spglib
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from nucleate.crystal import UnitCell, encode
from nucleate.crystal.convert import unit_cell_to_pymatgen
from nucleate.errors import NucleateError
from real_structures import (
    RealStructure,
    describe_run,
    num_rows,
    print_run,
    read_structures,
    structure_files,
    write_json,
)

SYMPREC, AGAIN_SYMPREC = 0.01, 1e-4
CHUNK = 64
PERCENTILES = (50, 90, 99, 99.9, 100)


def moyo_group(cell: UnitCell, symprec: float) -> int | None:
    """Space group number by moyopy with its default options; None where its search fails."""
    plain = moyopy.Cell(cell.lattice.tolist(), cell.frac_coords.tolist(), cell.atomic_numbers.tolist())
    try:
        return moyopy.MoyoDataset(plain, symprec=symprec).number
    except ValueError:
        return None


def spglib_group(cell: UnitCell, symprec: float) -> int | None:
    """Space group number by spglib; None where its search fails."""
    try:
        found = spglib.get_symmetry_dataset(
            (cell.lattice, cell.frac_coords, cell.atomic_numbers), symprec=symprec
        )
    except Exception:  # spglib's own error classes differ between versions
        return None
    return None if found is None else int(found.number)


def check_encoding(structure: RealStructure, max_atoms: int) -> dict[str, Any]:
    """Figures of one structure for the first pass."""
    cell = structure.cell
    line: dict[str, Any] = {"row": structure.row, "id": structure.id, "atoms": cell.num_atoms}
    line["given"], line["moyopy"] = structure.given_group, moyo_group(cell, SYMPREC)
    start = time.perf_counter()
    try:
        encoded = encode(cell, symprec=SYMPREC, max_atoms=max_atoms)
    except Exception as error:
        kind = type(error).__name__
        return line | {
            "error": kind if isinstance(error, NucleateError) else f"BUG {kind}",
            "reason": str(error),
        }
    line["seconds"] = round(time.perf_counter() - start, 6)
    crystal, back = encoded.crystal, encoded.unit_cell()
    line |= {
        "group": crystal.space_group_number,
        "orbits": crystal.num_orbits,
        "free": crystal.num_free_coords,
    }
    line |= {"displacement": encoded.max_displacement, "strain": encoded.max_strain}
    delta = back.frac_coords - cell.frac_coords
    moved = np.linalg.norm((delta - np.rint(delta)) @ back.lattice, axis=1).max()
    line["decoded_displacement"] = float(moved)
    theirs = np.unique(cell.atomic_numbers, return_counts=True)[1] / cell.num_atoms
    ours = np.array(list(crystal.composition.values())) / crystal.num_atoms_primitive
    line["composition"] = bool(
        (back.atomic_numbers == cell.atomic_numbers).all()
        and list(crystal.composition) == np.unique(cell.atomic_numbers).tolist()
        and np.allclose(ours, theirs, rtol=0, atol=1e-12)
    )
    volume = cell.volume / cell.num_atoms
    line["volume_ratio"] = crystal.volume_per_atom / volume
    line["decoded_volume_ratio"] = back.volume / cell.volume
    again = crystal.unit_cell("primitive")
    line["again_moyopy"], line["again_spglib"] = (
        moyo_group(again, AGAIN_SYMPREC),
        spglib_group(again, AGAIN_SYMPREC),
    )
    return line


class OutOfTimeError(Exception):
    """The matcher took longer than allowed."""


def _alarm(*_: Any) -> None:
    raise OutOfTimeError


def check_match(structure: RealStructure, max_atoms: int, limit_s: int) -> dict[str, Any]:
    """Figures of one structure for the second pass: does pymatgen call original and decoded the same?"""
    line: dict[str, Any] = {"row": structure.row, "id": structure.id}
    try:
        encoded = encode(structure.cell, symprec=SYMPREC, max_atoms=max_atoms)
    except NucleateError:
        return line | {"skipped": True}
    matcher = StructureMatcher()
    original, decoded, primitive = (
        unit_cell_to_pymatgen(cell)
        for cell in (structure.cell, encoded.unit_cell(), encoded.crystal.unit_cell("primitive"))
    )
    signal.signal(signal.SIGVTALRM, _alarm)
    start = time.perf_counter()

    def ask(name: str, matcher: StructureMatcher, first: Structure, second: Structure) -> None:
        signal.setitimer(signal.ITIMER_VIRTUAL, limit_s)  # processor time: the machine may be busy
        try:
            line[name] = bool(matcher.fit(first, second))
        except OutOfTimeError:
            line[name] = f"no answer in {limit_s} s"
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)

    ask("decoded", matcher, original, decoded)
    ask("crystal", matcher, original, primitive)
    if False in (line["decoded"], line["crystal"]):
        # Is it the crystal, or the primitive cell that the matcher looks for first, within a tolerance of 0.25 Å?
        ask("unreduced", StructureMatcher(primitive_cell=False), original, decoded)
        ask("ideal_itself", matcher, decoded, primitive)
    return line | {"match_seconds": round(time.perf_counter() - start, 4)}


def _work(job: tuple[str, str, list[int], int, int]) -> list[dict[str, Any]]:
    warnings.simplefilter("ignore")
    phase, path, rows, max_atoms, limit_s = job
    structures = read_structures(Path(path), rows=rows)  # type: ignore[arg-type]
    if phase == "encode":
        return [check_encoding(s, max_atoms) for s in structures]
    return [check_match(s, max_atoms, limit_s) for s in structures]


def _jobs(phase: str, path: Path, rows: list[int], options: argparse.Namespace) -> Iterator[tuple]:
    for first in range(0, len(rows), CHUNK):
        yield phase, str(path), rows[first : first + CHUNK], options.max_atoms, options.match_seconds


def run_pass(phase: str, paths: list[Path], options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """All lines of one pass, those of an earlier run included."""
    lines: dict[str, list[dict[str, Any]]] = {}
    with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
        for path in paths:
            target = options.work / phase / f"{path.stem}.jsonl"
            target.parent.mkdir(parents=True, exist_ok=True)
            known = [json.loads(text) for text in target.read_text().splitlines()] if target.exists() else []
            done = {line["row"] for line in known}
            rows = [row for row in wanted_rows(phase, path, options) if row not in done]
            start = time.perf_counter()
            with target.open("a") as stream:
                for part in pool.imap(_work, _jobs(phase, path, rows, options)):
                    known += part
                    stream.write("".join(json.dumps(line) + "\n" for line in part))
                    stream.flush()
            lines[path.stem] = known
            print(
                f"{phase} {path.stem}: {len(known)} structures, {time.perf_counter() - start:.0f} s",
                flush=True,
            )
    return lines


def wanted_rows(phase: str, path: Path, options: argparse.Namespace) -> list[int]:
    """Rows of a file that a pass looks at: all, the first --limit, or for the matcher a random sample."""
    rows = list(range(num_rows(path)))[: options.limit]
    if phase == "match" and not options.match_all and len(rows) > options.sample:
        rng = np.random.default_rng(options.seed)
        rows = sorted(rng.choice(rows, options.sample, replace=False).tolist())
    return rows


def summarise(encoded: list[dict[str, Any]], matched: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts, rates and percentiles of some structures."""
    good = [line for line in encoded if "error" not in line]
    stated = [line for line in good if line["given"] is not None]
    tried = [line for line in matched if "skipped" not in line]
    summary = {
        "structures": len(encoded),
        "encoded": len(good),
        "group_as_moyopy": sum(line["group"] == line["moyopy"] for line in good),
        "group_stated": len(stated),
        "group_as_stated": sum(line["group"] == line["given"] for line in stated),
        "moyopy_as_stated": sum(line["moyopy"] == line["given"] for line in stated),
        "composition": sum(line["composition"] for line in good),
        "volume_within_1_percent": sum(abs(line["volume_ratio"] - 1) < 0.01 for line in good),
        "again_moyopy": sum(line["again_moyopy"] == line["group"] for line in good),
        "again_spglib": sum(line["again_spglib"] == line["group"] for line in good),
        "match_tried": len(tried),
        "match_decoded": sum(line["decoded"] is True for line in tried),
        "match_crystal": sum(line["crystal"] is True for line in tried),
    }
    if good:
        for field in ("displacement", "decoded_displacement", "strain", "seconds"):
            values = np.percentile([line[field] for line in good], PERCENTILES)
            summary[field] = {f"p{p:g}": float(v) for p, v in zip(PERCENTILES, values)}
    return summary


def exceptions_of(
    file: str, encoded: list[dict[str, Any]], matched: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Every structure that is not as it should be, with what is not."""
    found = []
    for line in encoded:
        if "error" in line:
            problems = [f"{line['error']}: {line['reason']}"]
        else:
            problems = [
                text
                for bad, text in (
                    (line["group"] != line["moyopy"], f"group {line['group']}, moyopy {line['moyopy']}"),
                    (not line["composition"], "composition differs"),
                    (abs(line["volume_ratio"] - 1) >= 0.01, f"volume ratio {line['volume_ratio']:.4f}"),
                    (
                        line["again_moyopy"] != line["group"],
                        f"{line['group']} again by moyopy {line['again_moyopy']}",
                    ),
                    (
                        line["again_spglib"] != line["group"],
                        f"{line['group']} again by spglib {line['again_spglib']}",
                    ),
                )
                if bad
            ]
        found += [{"file": file, "row": line["row"], "id": line["id"], "problem": p} for p in problems]
    for line in matched:
        if line.get("decoded", True) is not True or line.get("crystal", True) is not True:
            problem = f"matcher: decoded {line['decoded']}, crystal {line['crystal']}"
            if "unreduced" in line:
                problem += (
                    f"; cells taken as they are: {line['unreduced']}; the two cells of the ideal crystal with each "
                    f"other: {line['ideal_itself']}"
                )
            found.append({"file": file, "row": line["row"], "id": line["id"], "problem": problem})
    return found


def print_table(summaries: dict[str, dict[str, Any]]) -> None:
    """The summaries, one line per file."""
    print(
        f"{'file':24s}{'rows':>8s}{'encoded':>9s}{'=moyopy':>9s}{'=stated':>14s}{'formula':>9s}{'volume':>8s}"
        f"{'moyopy':>8s}{'spglib':>8s}{'match':>9s}{'primitive':>17s}{'displacement 50/99/100 %':>28s}"
    )
    for name, s in summaries.items():
        d = s.get("displacement", dict.fromkeys(("p50", "p99", "p100"), float("nan")))
        print(
            f"{name:24s}{s['structures']:8d}{s['encoded']:9d}{s['group_as_moyopy']:9d}"
            f"{s['group_as_stated']:7d}/{s['group_stated']:<6d}{s['composition']:9d}{s['volume_within_1_percent']:8d}"
            f"{s['again_moyopy']:8d}{s['again_spglib']:8d}"
            f"{s['match_decoded']:9d}{s['match_crystal']:9d}/{s['match_tried']:<7d}"
            f"{d['p50']:10.1e}{d['p99']:9.1e}{d['p100']:9.1e}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of Parquet files")
    parser.add_argument("--work", type=Path, required=True, help="folder for the lines of each structure")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument("--files", nargs="*", default=[], help="names of files, all unless given")
    parser.add_argument("--limit", type=int, help="look at the first rows of each file only")
    parser.add_argument("--sample", type=int, default=200, help="structures per file for the matcher")
    parser.add_argument("--match-all", action="store_true", help="the matcher looks at every structure")
    parser.add_argument("--match-seconds", type=int, default=300, help="longest time for one match")
    parser.add_argument("--max-atoms", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    run = describe_run(**vars(options))
    print_run(run)
    paths = [f for f in structure_files(options.data) if not options.files or f.stem in options.files]
    encoded, matched = run_pass("encode", paths, options), run_pass("match", paths, options)
    summaries = {path.stem: summarise(encoded[path.stem], matched[path.stem]) for path in paths}
    everything = [list(chain.from_iterable(lines.values())) for lines in (encoded, matched)]
    summaries["all"] = summarise(*everything)
    exceptions = [
        e for path in paths for e in exceptions_of(path.stem, encoded[path.stem], matched[path.stem])
    ]
    print_table(summaries)
    total = summaries["all"]
    for field in ("displacement", "decoded_displacement", "strain", "seconds"):
        print(f"{field:22s}" + "  ".join(f"{k} {v:.2e}" for k, v in total.get(field, {}).items()))
    print(f"{len(exceptions)} exceptions")
    for kind, count in Counter(e["problem"].split(":")[0] for e in exceptions).most_common(30):
        print(f"  {count:6d}  {kind}")
    write_json(options.out, {"run": run, "files": summaries, "exceptions": exceptions})


if __name__ == "__main__":
    main()
