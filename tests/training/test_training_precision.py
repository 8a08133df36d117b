"""Which number type a training takes where nothing is said."""

from __future__ import annotations

import pytest
import torch

from nucleate.training import precision
from nucleate.training.precision import multiplies_bfloat16, precision_for


@pytest.mark.parametrize(
    ("machine", "avx512_bf16", "amx", "expected"),
    [
        ("x86_64", False, False, "32-true"),
        ("x86_64", True, False, "bf16-mixed"),
        ("AMD64", False, True, "bf16-mixed"),
    ],
)
def test_bfloat16_is_taken_where_the_processor_has_instructions_for_it(
    machine: str, avx512_bf16: bool, amx: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision.platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert precision_for("auto", "cpu") == expected
    assert precision_for("auto", "cuda") == "bf16-mixed"
    assert precision_for("32-true", "cuda") == "32-true"
    assert precision_for("bf16-mixed", "cpu") == "bf16-mixed"


def test_other_processors_are_asked_through_the_library_of_matrix_products(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(precision.platform, "machine", lambda: "arm64")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert multiplies_bfloat16() is False
