"""Which number type the matrix products of a training take."""

from __future__ import annotations

import platform
from typing import Literal

import torch

Precision = Literal["bf16-mixed", "32-true"]
PrecisionSetting = Literal["auto", "bf16-mixed", "32-true"]


def precision_for(asked: PrecisionSetting, accelerator: str) -> Precision:
    """The precision asked for; with ``auto`` bfloat16 where the device multiplies in it, float32 elsewhere.

    Processors without instructions for bfloat16 take about three times as long in it as in float32
    (``docs/train.md``).

    Args:
        asked: the setting.
        accelerator: what is trained on, as Lightning names it: cpu, cuda, ...
    """
    if asked != "auto":
        return asked
    return "bf16-mixed" if accelerator != "cpu" or multiplies_bfloat16() else "32-true"


def multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for products of bfloat16 matrices, and torch uses them."""
    if platform.machine().lower() in ("x86_64", "amd64"):
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
