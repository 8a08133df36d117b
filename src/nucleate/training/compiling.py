"""Compiling the layers of a network where a compiler is at hand."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.util import find_spec

from torch import nn

VARIANTS = 32
"""Kernels that may be built of one layer: with and without gradients, of the first layer, whose vectors have none, with
0, 1 and more of what is ragged. torch gives up at 8, and what is new from then on runs without kernels."""


def has_compiler(device_type: str) -> bool:
    """Whether torch.compile can build kernels: Triton for a GPU, a C++ compiler and Python's headers for a CPU."""
    if device_type == "cuda":
        return find_spec("triton") is not None
    if device_type != "cpu" or sys.platform == "win32":
        return False
    compilers = (os.environ.get("CXX"), "g++", "clang++", "c++")
    return any(name and shutil.which(name) for name in compilers)


PAYS_AFTER_MINUTES, PAYS_AFTER_STEPS = 20.0, 3_000
"""Building the kernels takes one to three minutes of a CPU core; shorter trainings are over sooner without."""


def compiles(
    choice: str, device_type: str, *, minutes: float | None = None, max_steps: int | None = None
) -> bool:
    """What ``compile: auto | on | off`` of a configuration means on a device.

    Args:
        choice: ``auto`` compiles where a compiler is installed and the budget is long enough to pay for it.
        device_type: cpu or cuda.
        minutes: wall-clock budget, None for none.
        max_steps: budget in steps, None for none.
    """
    short = (minutes is not None and minutes < PAYS_AFTER_MINUTES) or (
        max_steps is not None and max_steps < PAYS_AFTER_STEPS
    )
    return choice == "on" or (choice == "auto" and not short and has_compiler(device_type))


def compile_layers(network: nn.Module) -> None:
    """Compile each of ``network.layers`` in place, for batches of any size.

    A layer is called with the same kind of ragged batch every time; everything around it (neighbour search, group
    action) stays eager. State dictionaries and copies of the network are those of the plain one.
    """
    from torch._dynamo import config  # noqa: PLC0415  (loads the compiler)

    config.recompile_limit = max(config.recompile_limit, VARIANTS)
    layers = network.layers
    assert isinstance(layers, nn.ModuleList)
    for layer in layers:
        layer.compile(dynamic=True)
