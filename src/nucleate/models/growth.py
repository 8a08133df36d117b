"""A trained network made larger: the same function at first, with more to learn."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, TypeVar

import torch
from torch import Tensor

from nucleate.errors import CheckpointError
from nucleate.models.orbit_transformer import OrbitTransformer, OrbitTransformerConfig
from nucleate.models.template_transformer import SWITCHES, TemplateTransformer, TemplateTransformerConfig

Network = TypeVar("Network", OrbitTransformer, TemplateTransformer)

BRANCHES = ("reciprocal", "coarse", "tensors")
"""Sizes that may grow from 0. What such a branch adds to the rest of the network starts at zero."""
SIZES = ("layers", "hidden")
"""Sizes that may grow from what they are."""
_GIVEN_BACK = ("attention.out_scalars", "attention.out_vectors", "attention.out_tensors", "update.network.2")
"""What a layer adds to its inputs; zero in a new layer (whose branches give back zero by themselves)."""
_TENSOR_GATES = "tensor_update.gates"


def grown(network: OrbitTransformer, config: OrbitTransformerConfig, *, seed: int = 0) -> OrbitTransformer:
    """The network of ``config`` with the weights of ``network`` and new parts that change nothing yet.

    New layers follow the old ones and add zero to their inputs; new hidden units of the edge networks are not read
    yet; new branches add zero. The two networks give the same numbers (to rounding, where ``hidden`` grows) until
    the new weights are trained. Device, type and mode follow ``network``; the random generator of the caller is left
    as it was.

    Args:
        network: what was trained.
        config: its configuration with more ``layers``, more ``hidden`` units, or some of ``reciprocal``, ``coarse``,
            ``tensors`` no longer 0.
        seed: of the new weights.

    Raises:
        CheckpointError: the configurations differ in something else, or a part would shrink or go.
    """
    check_growth(network.config, config)
    larger = _fresh(network, config, seed)
    trained = network.state_dict()
    state = larger.state_dict()
    for name, fresh in state.items():
        if name in trained:
            state[name] = _widened(name, trained[name], fresh, network.config, config)
        elif _layer_of(name) >= network.config.layers:
            if any(part in name for part in _GIVEN_BACK):
                state[name] = torch.zeros_like(fresh)
            elif _TENSOR_GATES in name:  # the gates of what tensors are given; the first ones turn vectors
                state[name] = fresh.clone()
                state[name][config.tensors :] = 0
    larger.load_state_dict(state)
    return larger


def grown_template(
    network: TemplateTransformer, config: TemplateTransformerConfig, *, seed: int = 0
) -> TemplateTransformer:
    """The template network of ``config`` with the weights of ``network``; switches that are new change nothing yet.

    Args:
        network: what was trained.
        config: its configuration with another ``dropout``, or more of the ``SWITCHES``.
        seed: of the new weights.

    Raises:
        CheckpointError: the configurations differ in something else, or a part would go.
    """
    check_template_growth(network.config, config)
    larger = _fresh(network, config, seed)
    larger.load_state_dict(larger.state_dict() | network.state_dict())
    return larger


def check_template_growth(network: TemplateTransformerConfig, config: TemplateTransformerConfig) -> None:
    """Whether a template network of the first configuration can grow into the second.

    Raises:
        CheckpointError: it cannot; see ``grown_template``.
    """
    before, after = asdict(network), asdict(config)
    free = {"dropout", *(name for name in SWITCHES if not before[name])}
    if changes := _changes(before, after, free):
        raise CheckpointError(
            f"A template network can be given {' and '.join(SWITCHES)} and another dropout; this would "
            f"change {changes}: leave it out of the configuration, or train from scratch"
        )


def check_growth(network: OrbitTransformerConfig, config: OrbitTransformerConfig) -> None:
    """Whether a network of the first configuration can grow into the second.

    Raises:
        CheckpointError: it cannot; see ``grown``.
    """
    before, after = asdict(network), asdict(config)
    free = {name for name in BRANCHES if not before[name]}
    free |= {name for name in SIZES if after[name] >= before[name]}
    if not network.reciprocal:
        free.add("reciprocal_radius")  # nothing was trained with it
    if changes := _changes(before, after, free):
        raise CheckpointError(
            f"A network grows in {' and '.join(SIZES)}, and by {', '.join(BRANCHES)} from 0; this would change "
            f"{changes}: keep it as it is, or train from scratch"
        )


def _fresh(network: Network, config: Any, seed: int) -> Network:
    """A new network of the configuration, with device, type and mode of the trained one."""
    parameter = next(network.parameters())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        larger = type(network)(config)
    return larger.to(parameter.device, parameter.dtype).train(network.training)


def _changes(before: dict[str, Any], after: dict[str, Any], free: set[str]) -> str:
    """What differs beside the free entries, for people."""
    other = [name for name in before if before[name] != after[name] and name not in free]
    return ", ".join(f"{name} from {before[name]} to {after[name]}" for name in other)


def _layer_of(name: str) -> int:
    """Number of the layer a parameter belongs to, -1 outside the layers."""
    parts = name.split(".")
    return int(parts[1]) if parts[0] == "layers" else -1


def _widened(
    name: str,
    trained: Tensor,
    fresh: Tensor,
    before: OrbitTransformerConfig,
    after: OrbitTransformerConfig,
) -> Tensor:
    """The trained numbers where they belong in a tensor of the larger size; trained rows do not read new units."""
    if trained.shape == fresh.shape:
        return trained
    rows, columns = torch.arange(trained.shape[0]), torch.arange(trained.shape[-1])
    if "attention." in name:  # the values of one head stay with it
        unit = torch.arange(before.hidden)
        width, wider = before.hidden // before.heads, after.hidden // after.heads
        spread = unit // width * wider + unit % width
        if ".values." in name:
            rows = torch.cat([spread, torch.arange(after.hidden, fresh.shape[0])])
        elif ".out_scalars." in name:
            columns = spread
    result = fresh.clone()
    if trained.dim() == 1:
        result[rows] = trained
        return result
    if trained.shape[1] < fresh.shape[1]:
        result[rows] = 0
    result[rows[:, None], columns] = trained
    return result
