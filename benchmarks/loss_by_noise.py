"""Where the geometry network errs: losses of held-out structures by noise level, and by what kind of crystal they are.

Every structure of a sample of MP-20 gets noise of each level once, in coordinates and cell alike, and the network finds
it back; the loss is that of training (squared displacement per atom over the squared level, in units of (V/N)^(2/3),
and the squared error of the normalised lattice). Beside it what is lost by taking the noisy crystal itself for the
answer: where the two meet, nothing is learned.

    python benchmarks/loss_by_noise.py --data DATA --weights FILE --pool val --size 600
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import nucleate
from nucleate.crystal import Crystal, CrystalBatch
from nucleate.generation import Generator
from nucleate.generation.geometry_sampling import network_denoiser, passes_by_size
from nucleate.models.orbit_transformer import Denoised
from nucleate.processes.geometry_process import GeometryNoise, geometry_losses
from real_structures import describe_run, print_run, write_json
from resumable import settle_process
from template_match import GROUPINGS, STRATA, held_out

LEVELS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def free_class(crystal: Crystal) -> str:
    """Stratum of free coordinates."""
    low, high = next((low, high) for low, high in STRATA if low <= crystal.num_free_coords <= high)
    return f"{low} and more" if high == 999 else f"{low}" if low == high else f"{low} to {high}"


KINDS: dict[str, Callable[[Crystal], str]] = {"all": lambda _: "", "free": free_class, **GROUPINGS}


@torch.no_grad()
def losses(generator: Generator, truth: list[Crystal], seed: int) -> np.ndarray:
    """(coordinates, lattice; network, noisy crystal; level; structure)."""
    process = generator.choice.process
    source = 1 + generator.sources.index("mp_20") if "mp_20" in generator.sources else 0
    network = network_denoiser(generator.geometry, source=source)
    templates = CrystalBatch.from_crystals(truth, dtype=torch.float32)
    found = np.zeros((2, 2, len(LEVELS), len(truth)))
    for chosen in passes_by_size(templates, radius=generator.geometry.config.radius):
        clean = templates[torch.tensor(chosen)]
        streams = [torch.Generator().manual_seed(seed * 1_000_003 + i) for i in chosen]
        for row, value in enumerate(LEVELS):
            level = torch.full((len(clean),), value)
            noisy = process.corrupt(clean, level, level, GeometryNoise.draw_by_crystal(clean, streams))
            guess = network(noisy.crystals, process.told_level(clean, level), level)
            itself = Denoised(
                torch.zeros_like(guess.displacements),
                noisy.crystals.lattice_params,
                guess.element_logits,
                guess.pooled,
            )
            for column, believed in enumerate((guess, itself)):
                parts = geometry_losses(process, believed, noisy, clean, level, level)
                for part, loss in enumerate(parts):
                    found[part, column, row, chosen] = loss.numpy()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--pool", choices=("train", "val"), default="val")
    parser.add_argument("--size", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    run = describe_run(**vars(options))
    print_run(run)
    settle_process()
    truth = held_out(options.data, options.pool, options.size, options.seed)
    found = losses(nucleate.load(options.weights), truth, options.seed)
    moving = np.array([crystal.num_free_coords > 0 for crystal in truth])
    figures = {}
    for part, name in enumerate(("coordinates", "lattice")):
        print(f"\n{name}: network / noisy crystal, by level")
        print(f"{'':24} n   " + " ".join(f"{level:>11g}" for level in LEVELS))
        for kind, label_of in KINDS.items():
            labels = np.array([label_of(crystal) for crystal in truth])
            for label in np.unique(labels):
                # coordinates: over the crystals that have any
                mine = (labels == label) & (moving | (part == 1))
                if not mine.any():
                    continue
                means = found[part][:, :, mine].mean(axis=2)
                figures[f"{name}, {kind} {label}".strip()] = {"n": int(mine.sum()), "loss": means.tolist()}
                cells = " ".join(f"{a:5.3f}/{b:5.2f}" for a, b in means.T)
                print(f"{kind + ' ' + str(label):24} {mine.sum():4d} {cells}")
    write_json(options.out, {"run": run, "levels": LEVELS, "figures": figures})


if __name__ == "__main__":
    main()
