"""A trained network with further branches: the same function at first, with more to learn."""

from __future__ import annotations

from dataclasses import asdict

import torch

from nucleate.errors import CheckpointError
from nucleate.models.orbit_transformer import OrbitTransformer, OrbitTransformerConfig

BRANCHES = ("reciprocal", "coarse", "tensors")
"""Sizes that may grow from 0. What such a branch adds to the rest of the network starts at zero."""
_OF_A_BRANCH = (*BRANCHES, "reciprocal_radius")


def grown(network: OrbitTransformer, config: OrbitTransformerConfig, *, seed: int = 0) -> OrbitTransformer:
    """The network of ``config`` with the weights of ``network`` and new branches that change nothing yet.

    The two give the same numbers until the new weights are trained. Device, type and mode follow ``network``;
    the random generator of the caller is left as it was.

    Args:
        network: what was trained.
        config: its configuration with some of ``reciprocal``, ``coarse``, ``tensors`` no longer 0.
        seed: of the new weights.

    Raises:
        CheckpointError: the configurations differ in something else, or a branch would change its size or go.
    """
    before, after = asdict(network.config), asdict(config)
    other = [
        name for name in before if before[name] != after[name] and (name not in _OF_A_BRANCH or before[name])
    ]
    if not network.config.reciprocal and "reciprocal_radius" in other:
        other.remove("reciprocal_radius")  # nothing was trained with it
    if other:
        changes = ", ".join(f"{name} from {before[name]} to {after[name]}" for name in other)
        raise CheckpointError(
            f"A network grows by {', '.join(BRANCHES)} from 0; this would change {changes}: "
            "keep it as it is, or train from scratch"
        )
    parameter = next(network.parameters())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        larger = OrbitTransformer(config)
    larger = larger.to(parameter.device, parameter.dtype).train(network.training)
    state = larger.state_dict()
    state.update(network.state_dict())
    larger.load_state_dict(state)
    return larger
