"""Which sizes a network can have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from nucleate.errors import ConfigError


def check_signs(config: Any, *, may_be_zero: Sequence[str]) -> None:
    """Whether all numbers of a dataclass of sizes are greater than 0, or 0 where they may be.

    Raises:
        ConfigError: one is not.
    """
    for field in fields(config):
        value = getattr(config, field.name)
        if value is None or isinstance(value, bool):
            continue
        if field.name in may_be_zero:
            if value < 0:
                raise ConfigError(f"{field.name} must not be negative, got {value}")
        elif value <= 0:
            raise ConfigError(f"{field.name} must be greater than 0, got {value}")


def check_multiples(config: Any, names: Sequence[str]) -> None:
    """Whether the number of heads divides these sizes; it divides 0.

    Raises:
        ConfigError: it does not.
    """
    for name in names:
        value = getattr(config, name)
        if value % config.heads:
            raise ConfigError(
                f"{name} must be a multiple of heads, got {name} {value} and heads {config.heads}"
            )
