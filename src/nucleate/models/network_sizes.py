"""Which sizes a network can have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nucleate.errors import ConfigError


def check_positive(config: Any, names: Sequence[str]) -> None:
    """Whether these sizes, where they are not None, are greater than 0.

    Raises:
        ConfigError: one is not.
    """
    for name in names:
        value = getattr(config, name)
        if value is not None and value <= 0:
            raise ConfigError(f"{name} must be greater than 0, got {value}")


def check_multiples(config: Any, names: Sequence[str]) -> None:
    """Whether the number of heads divides these sizes; it divides 0.

    Raises:
        ConfigError: it does not.
    """
    for name in names:
        value = getattr(config, name)
        if value < 0 or value % config.heads:
            raise ConfigError(
                f"{name} must be a multiple of heads, got {name} {value} and heads {config.heads}"
            )
