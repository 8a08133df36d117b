"""Which sizes a network can have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nucleate.errors import ConfigError


def check_sizes(config: Any, *, positive: Sequence[str], divided: Sequence[str]) -> None:
    """Whether a network can have these sizes.

    Args:
        config: dataclass of sizes with a field ``heads``, which is one of the positive ones.
        positive: fields that must be greater than 0 where they are not None.
        divided: fields that must be multiples of ``heads``; 0 is one.

    Raises:
        ConfigError: it cannot.
    """
    for name in positive:
        value = getattr(config, name)
        if value is not None and value <= 0:
            raise ConfigError(f"{name} must be greater than 0, got {value}")
    for name in divided:
        value = getattr(config, name)
        if value < 0 or value % config.heads:
            raise ConfigError(
                f"{name} must be a multiple of heads, got {name} {value} and heads {config.heads}"
            )
