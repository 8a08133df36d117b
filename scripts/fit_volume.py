"""Writes src/nucleate/physics/tables/volume.npz, the weights of nucleate.physics.volume; prints errors.

    python scripts/fit_volume.py --data ../shared/data

Protocol: train rows of the benchmark data whose formula is not in val; a tenth of the formulas is held out
    for the
calibration of the uncertainty and for the errors per source; val (held-out formulas of MP-20) is only looked
at. Laplace likelihood of log(volume per atom), three networks from different seeds. The JARVIS rows were
relaxed with another functional (optB88vdW): while training, and only then, they get an offset and a scale of
their own. About ten minutes on one core.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from nucleate.physics.elements import FEATURE_NAMES, NUM_ELEMENTS, element_features, element_values
from nucleate.physics.volume import (
    VolumeNetwork,
    composition_matrix,
    radius_volume,
    surrogate_element,
    volumes_per_atom,
)
from structure_pool import PoolStructure, split_pools

OUTPUT = Path(__file__).resolve().parents[1] / "src" / "nucleate" / "physics" / "tables" / "volume.npz"
EMBEDDING, HIDDEN, EPOCHS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 32, 96, 150, 512, 4e-3, 1e-2
MINIMUM_SEEN = 20


class TorchVolume(nn.Module):
    """The network of nucleate.physics.volume, trainable; see there for the equations."""

    def __init__(self) -> None:
        super().__init__()
        features = np.vstack([np.zeros(len(FEATURE_NAMES)), element_features(np.arange(1, NUM_ELEMENTS + 1))])
        self.features = torch.tensor(features, dtype=torch.float32)
        self.from_features = nn.Linear(features.shape[1], EMBEDDING, bias=False)
        self.own = nn.Embedding(NUM_ELEMENTS + 1, EMBEDDING)
        self.log_volume = nn.Embedding(NUM_ELEMENTS + 1, 1)
        self.single = nn.Linear(EMBEDDING, HIDDEN)
        self.single_context = nn.Linear(EMBEDDING, HIDDEN, bias=False)
        self.pair_left = nn.Linear(EMBEDDING, HIDDEN)
        self.pair_right = nn.Linear(EMBEDDING, HIDDEN, bias=False)
        self.pair_context = nn.Linear(EMBEDDING, HIDDEN, bias=False)
        self.mix = nn.Linear(2 * HIDDEN + EMBEDDING, HIDDEN)
        self.out = nn.Linear(HIDDEN, 2)
        self.functional = nn.Linear(EMBEDDING, 2)
        nn.init.constant_(self.log_volume.weight, 2.8)
        for tensor in (
            self.own.weight,
            self.out.weight,
            self.out.bias,
            self.functional.weight,
            self.functional.bias,
        ):
            nn.init.zeros_(tensor)

    def embeddings(self) -> torch.Tensor:
        return self.from_features(self.features) + self.own.weight

    def forward(
        self, z: torch.Tensor, share: torch.Tensor, other_functional: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        e = self.embeddings()[z]
        context = (share[..., None] * e).sum(1)
        single = functional.silu(self.single(e) + self.single_context(context)[:, None])
        pair = functional.silu(
            self.pair_left(e)[:, :, None]
            + self.pair_right(e)[:, None]
            + self.pair_context(context)[:, None, None]
        )
        pooled_pair = torch.einsum("bi,bj,bijh->bh", share, share, pair)
        pooled = torch.cat([(share[..., None] * single).sum(1), pooled_pair, context], dim=1)
        out = self.out(functional.silu(self.mix(pooled))) + other_functional[:, None] * self.functional(
            context
        )
        base = torch.log((share * self.log_volume(z)[..., 0].exp()).sum(1))
        return base + out[:, 0], out[:, 1] - 3.0

    def export(self) -> dict[str, np.ndarray]:
        state = {
            "embedding": self.embeddings(),
            "log_volume": self.log_volume.weight[:, 0],
            "mix": self.mix.weight.T,
            "mix_bias": self.mix.bias,
            "out": self.out.weight.T,
            "out_bias": self.out.bias,
        }
        for name in ("single", "single_context", "pair_left", "pair_right", "pair_context"):
            layer = getattr(self, name)
            state[name] = layer.weight.T
            if layer.bias is not None:
                state[f"{name}_bias"] = layer.bias
        return {name: value.detach().numpy().astype(np.float16) for name, value in state.items()}


def tensors(structures: list[PoolStructure]) -> tuple[torch.Tensor, ...]:
    z, share = composition_matrix([s.atomic_numbers for s in structures])
    target = np.log([s.volume_per_atom for s in structures])
    jarvis = [float(s.source == "jarvis_dft3d") for s in structures]
    return (
        torch.from_numpy(z),
        torch.from_numpy(share).float(),
        torch.tensor(target, dtype=torch.float32),
        torch.tensor(jarvis),
    )


def train(data: tuple[torch.Tensor, ...], seed: int) -> TorchVolume:
    torch.manual_seed(seed)
    model = TorchVolume()
    z, share, target, jarvis = data
    batches = len(target) // BATCH
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, LEARNING_RATE, total_steps=EPOCHS * batches, pct_start=0.1
    )
    start = time.time()
    for epoch in range(EPOCHS):
        order = torch.randperm(len(target))
        for k in range(batches):
            rows = order[k * BATCH : (k + 1) * BATCH]
            mean, log_scale = model(z[rows], share[rows], jarvis[rows])
            loss = ((mean - target[rows]).abs() * torch.exp(-log_scale) + log_scale).mean()
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
        if epoch % 25 == 24:
            print(
                f"  seed {seed} epoch {epoch + 1}: loss {loss.item():.3f}, {time.time() - start:.0f} s",
                flush=True,
            )
    return model


def linear_baseline(fit: list[PoolStructure]) -> np.ndarray:
    """Coefficients of log volume per atom on element fractions, ridge 0.1."""
    x = fractions(fit)
    return np.linalg.solve(x.T @ x + 0.1 * np.eye(x.shape[1]), x.T @ np.log([s.volume_per_atom for s in fit]))


def fractions(structures: list[PoolStructure]) -> np.ndarray:
    return np.array(
        [
            np.bincount(s.atomic_numbers, minlength=NUM_ELEMENTS + 1) / len(s.atomic_numbers)
            for s in structures
        ]
    )


def radius_power(fit: list[PoolStructure], seen: np.ndarray) -> tuple[float, float]:
    """(a, p) of ``volume = a r^p`` over covalent radii, least absolute deviation on whole compositions."""
    x = torch.from_numpy(fractions(fit)[:, 1:])
    target = torch.tensor(np.log([s.volume_per_atom for s in fit]))
    radii = torch.from_numpy(element_values("covalent_radius", np.arange(1, NUM_ELEMENTS + 1)))
    parameters = torch.tensor([2.0, 2.0], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([parameters], lr=0.02)
    for _ in range(400):
        error = parameters[0] + torch.log((x * radii ** parameters[1]).sum(1)) - target
        optimiser.zero_grad()
        error.abs().mean().backward()
        optimiser.step()
    amplitude, power = parameters.detach().numpy()
    return float(np.exp(amplitude)), float(power)


def report(name: str, structures: list[PoolStructure], linear: np.ndarray) -> None:
    truth = np.log([s.volume_per_atom for s in structures])
    estimates = volumes_per_atom([s.atomic_numbers for s in structures])
    error = np.abs(np.log(estimates.mean) - truth)
    plain = np.abs(fractions(structures) @ linear - truth)
    inside = [(error <= k * estimates.log_std).mean() for k in (1, 2)]
    print(
        f"{name:>22}: n {len(truth):6d}  linear {plain.mean():.4f}  network {error.mean():.4f}"
        f"  median {np.median(error):.4f}  within 1 std {inside[0]:.3f}, 2 std {inside[1]:.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--members", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    fit, held, val = split_pools(arguments.data)
    print(f"{len(fit)} structures to fit, {len(held)} held out, {len(val)} val")
    counts = (fractions(fit) > 0).sum(axis=0)
    seen = counts >= MINIMUM_SEEN
    data = tensors(fit)
    members = [train(data, seed) for seed in range(arguments.members)]
    arrays = {
        f"{name}_{k}": value for k, member in enumerate(members) for name, value in member.export().items()
    }
    amplitude, power = radius_power(fit, seen)
    settings = {"seen": seen, "radius_law": np.array([amplitude, power]), "members": np.array(len(members))}

    # One factor on the spread: two thirds of the held-out crystals of the target functional within one std.
    network = VolumeNetwork.from_arrays({**arrays, **settings, "calibration": np.array([1.0, 0.0])})
    target = [s for s in held if s.source != "jarvis_dft3d" and seen[s.atomic_numbers].all()]
    mean, std = network.predict(*composition_matrix([s.atomic_numbers for s in target]))
    ratio = np.abs(mean - np.log([s.volume_per_atom for s in target])) / std
    scale = float(np.quantile(ratio, 0.683))

    # What replacing an element by its surrogate costs: every seen element in turn is treated as unseen.
    errors = []
    rows = held + val
    for z in np.flatnonzero(seen):
        chosen = [s for s in rows if z in s.atomic_numbers and seen[s.atomic_numbers].all()]
        if not chosen:
            continue
        without = seen.copy()
        without[z] = False
        zs, share = composition_matrix([s.atomic_numbers for s in chosen])
        proxy = np.where(zs == z, surrogate_element(int(z), without), zs)
        shift = np.log(
            radius_volume(zs, share, amplitude, power) / radius_volume(proxy, share, amplitude, power)
        )
        swapped, _ = network.predict(proxy, share)
        own, _ = network.predict(zs, share)
        weight = (share * (zs == z)).sum(1)
        errors.append(np.stack([swapped + shift - own, swapped - own, weight], axis=1))
    all_errors = np.concatenate(errors)
    per_share = float(np.quantile(np.abs(all_errors[:, 0]) / all_errors[:, 2], 0.683))
    print(
        f"calibration {scale:.3f}; radius law {amplitude:.3f} r^{power:.3f}; "
        f"unseen elements: added error per share {per_share:.3f}"
    )
    print(
        f"  swapping alone {np.abs(all_errors[:, 1]).mean():.4f}, "
        f"with the radius law {np.abs(all_errors[:, 0]).mean():.4f}"
    )
    np.savez_compressed(OUTPUT, **arrays, **settings, calibration=np.array([scale, per_share]))
    print(f"{OUTPUT.name}: {OUTPUT.stat().st_size / 1000:.0f} kB")
    print("rarely or never seen:", [z for z in range(1, NUM_ELEMENTS + 1) if not seen[z]])

    linear = linear_baseline(fit)
    report("val (mp_20)", val, linear)
    report("held out, all", held, linear)
    for source in sorted({s.source for s in held}):
        report(f"held out, {source}", [s for s in held if s.source == source], linear)
    rng = np.random.default_rng(0)
    shuffled = np.log([s.volume_per_atom for s in val])[rng.permutation(len(val))]
    guesses = np.log(volumes_per_atom([s.atomic_numbers for s in val]).mean)
    print(f"negative control, val volumes shuffled: {np.abs(guesses - shuffled).mean():.4f}")


if __name__ == "__main__":
    main()
