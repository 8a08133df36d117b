"""Training speed: crystals per second of `nucleate train` and of a bare loop, share of the matrix product peak, memory.

    python benchmarks/training_throughput.py --store STORE --steps 150 --warm-up 40 [--weights FILE]

With ``--template`` the template network is trained instead, with and without its charge balance. Without it, both
train the geometry network with the same settings on the same store: the bare loop draws batches, noises them and
steps the optimiser, nothing else; `nucleate train` adds Lightning, the moving average, the NaN guard, metrics and the
stream. Seconds are processor seconds of one thread, so that other work on the machine does not count, or with
``--device cuda`` those of the clock; the first steps (compiling) are left out. The peak is that of a square matrix
product of the same type, measured in the same run; operations are those torch counts in one training step.
On an accelerator ``--kernels`` also lists what its time goes to.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from nucleate.data import Store
from nucleate.models.checkpoint import load_checkpoint
from nucleate.models.orbit_transformer import OrbitTransformer, OrbitTransformerConfig
from nucleate.processes.choice import ProcessChoice
from nucleate.training.compiling import compile_layers, compiles
from nucleate.training.config import TrainingConfig
from nucleate.training.crystal_stream import CrystalStream
from nucleate.training.geometry_task import GeometryTask
from nucleate.training.part_setup import size_limits
from nucleate.training.recorder import TrainingProgress
from nucleate.training.train import train
from real_structures import describe_run, print_run, write_json


def seconds_on(device: str) -> float:
    """Processor seconds of this process, or the clock once an accelerator has done what it was given."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def matmul_peak(dtype: torch.dtype, device: str, seconds: float = 2.0) -> float:
    """Operations per second of a square matrix product, 2048 rows on a CPU and 8192 elsewhere."""
    size, at_once = (2048, 1) if device == "cpu" else (8192, 10)
    a = torch.randn(size, size, device=device).to(dtype)
    a @ a
    rounds, start = 0, seconds_on(device)
    while seconds_on(device) - start < seconds:
        for _ in range(at_once):
            a @ a
        rounds += at_once
    return rounds * 2 * size**3 / (seconds_on(device) - start)


def peak_memory_gb(device: str) -> float:
    """The most this process has held, on the accelerator where there is one."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def stream_of(store: Store, config: TrainingConfig) -> CrystalStream:
    """Training batches as the trainer draws them."""
    return CrystalStream(store.split("train"), tokens={}, limits=size_limits(config), seed=0)


def bare_loop(
    store: Store, config: TrainingConfig, steps: int, warm_up: int, *, device: str, kernels: bool
) -> dict[str, float]:
    """Crystals per second and operations per crystal of the loop alone."""
    stream = stream_of(store, config)
    choice = ProcessChoice.fit(
        stream.load_window(0, 0).crystals.to(device),
        kind=config.process,
        schedule=config.schedule,
        solver=config.sampling_solver,
    )
    task = GeometryTask(choice, time_power=config.time_power)
    network = OrbitTransformer(config.geometry).to(device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.learning_rate)
    mixed = config.precision == "bf16-mixed"

    def step(content, number: int) -> None:
        content = content.to(device)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=mixed):
            loss = task.losses(network, task.prepare(content, number, noise_level=1.0))["loss"]
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()

    batches = iter(stream)
    first = next(batches)
    with FlopCounterMode(display=False) as counter:
        step(first.content, 0)
    per_crystal = counter.get_total_flops() / len(first)
    if kernels:
        print_kernels(lambda: step(first.content, 0))
    if compiles(config.compile, device):
        compile_layers(network)
    crystals, since = 0, 0.0
    for number, batch in enumerate(batches, start=1):
        step(batch.content, number)
        if number == warm_up:
            since = seconds_on(device)
        elif number > warm_up:
            crystals += len(batch)
        if number == warm_up + steps:
            break
    seconds = seconds_on(device) - since
    return {
        "crystals_per_second": crystals / seconds,
        "operations_per_crystal": per_crystal,
        "crystals_per_step": crystals / steps,
    }


def print_kernels(step: Callable[[], None]) -> None:
    """What an accelerator spends a step on, without compiled layers: kernels and the operations that start them."""
    step()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        step()
        torch.cuda.synchronize()
    print(profiler.key_averages().table(sort_by="cuda_time_total", row_limit=30, max_name_column_width=60))


def whole_program(store: Path, config: TrainingConfig, warm_up: int, device: str) -> float:
    """Steps per second of `nucleate train` after the warm-up."""
    marks: dict[int, float] = {}

    def note(progress: TrainingProgress) -> None:
        marks[progress.step] = seconds_on(device)

    with tempfile.TemporaryDirectory() as folder:
        train(store, config, out=Path(folder) / "run", on_progress=note)
    first = min(step for step in marks if step >= warm_up)
    last = max(marks)
    return (last - first) / (marks[last] - marks[first])


def template_rates(store: Path, config: TrainingConfig, warm_up: int, device: str) -> dict[str, float]:
    """Crystals per second of `nucleate train` on the template network, with and without charge balance."""
    batches = islice(stream_of(Store.open(store), config), config.max_steps)
    per_step = sum(len(batch) for batch in batches) / config.max_steps
    rates = {}
    for name, on in (("with charge balance", True), ("without", False)):
        sizes = replace(config.template, charge_balance=on)
        rates[name] = per_step * whole_program(
            store, replace(config, part="template", template=sizes), warm_up, device
        )
        print(f"template, {name:20s}{rates[name]:8.1f} crystals/s", flush=True)
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--warm-up", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--precision", choices=("bf16-mixed", "32-true"), default="bf16-mixed")
    parser.add_argument("--compile", choices=("auto", "off"), default="auto")
    parser.add_argument("--weights", type=Path, help="take the sizes of these weights' geometry network")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--kernels", action="store_true", help="list what an accelerator's time goes to")
    parser.add_argument("--template", action="store_true", help="the template network, batches of 128 usual")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.kernels and options.device == "cpu":
        parser.error("--kernels is for an accelerator: give --device cuda too")
    run = describe_run(**vars(options))
    print_run(run)
    torch.set_num_threads(1)
    sizes = OrbitTransformerConfig(vectors=16, hidden=64, heads=4)
    if options.weights is not None:
        sizes = load_checkpoint(options.weights).geometry.config
    config = TrainingConfig(
        part="geometry",
        max_steps=options.steps + options.warm_up,
        batch_size=options.batch_size,
        precision=options.precision,
        # the usual limits, which would cut batches of hundreds short
        max_edges=max(40_000, 300 * options.batch_size),
        max_batch_atoms=max(6_000, 45 * options.batch_size),
        compile="on" if compiles(options.compile, options.device) else "off",
        validate_every=100_000,
        log_every=10,
        accelerator="cpu" if options.device == "cpu" else "gpu",
        geometry=sizes,
    )
    if options.template:
        rates = template_rates(options.store, config, options.warm_up, options.device)
        rates["peak_memory_gb"] = peak_memory_gb(options.device)
        print(f"peak memory      {rates['peak_memory_gb']:8.2f} GB")
        write_json(options.out, {"run": run, "figures": rates})
        return
    store = Store.open(options.store)
    peak = matmul_peak(torch.bfloat16 if options.precision == "bf16-mixed" else torch.float32, options.device)
    figures = bare_loop(
        store, config, options.steps, options.warm_up, device=options.device, kernels=options.kernels
    )
    rate = whole_program(options.store, config, options.warm_up, options.device)
    figures["train_crystals_per_second"] = rate * figures["crystals_per_step"]
    figures["matmul_peak"] = peak
    for name in ("crystals_per_second", "train_crystals_per_second"):
        figures[f"{name}_share_of_peak"] = figures[name] * figures["operations_per_crystal"] / peak
    figures["peak_memory_gb"] = peak_memory_gb(options.device)
    print(f"bare loop        {figures['crystals_per_second']:8.1f} crystals/s  "
          f"{100 * figures['crystals_per_second_share_of_peak']:5.1f} % of the peak")  # fmt: skip
    print(f"nucleate train   {figures['train_crystals_per_second']:8.1f} crystals/s  "
          f"{100 * figures['train_crystals_per_second_share_of_peak']:5.1f} % of the peak")  # fmt: skip
    print(f"peak {peak / 1e9:.1f} GFLOP/s, {figures['operations_per_crystal'] / 1e6:.1f} MFLOP per crystal, "
          f"{figures['peak_memory_gb']:.2f} GB")  # fmt: skip
    write_json(options.out, {"run": run, "figures": figures})


if __name__ == "__main__":
    main()
