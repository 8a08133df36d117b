"""Checkpoints: one safetensors file with every network, its configuration, statistics and history. Never a pickle."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import nucleate
from nucleate.errors import CheckpointError
from nucleate.models.orbit_transformer import OrbitTransformer, OrbitTransformerConfig
from nucleate.models.property_head import PropertyHead, PropertyHeadConfig
from nucleate.models.template_transformer import SWITCHES, TemplateTransformer, TemplateTransformerConfig
from nucleate.shapes import Float

FORMAT_VERSION = 2
FORMAT = "nucleate-weights"

Precision = Literal["float16", "bfloat16", "float32"]
"""Type the weights are stored in. float16 keeps 11 significant bits, bfloat16 8, float32 24."""

TABLE_TOLERANCE = 1e-3
"""How far a table of features may differ from the one the weights were trained with."""

_KIND: dict[str, tuple[type, type]] = {
    "geometry": (OrbitTransformer, OrbitTransformerConfig),
    "weak": (OrbitTransformer, OrbitTransformerConfig),
    "template": (TemplateTransformer, TemplateTransformerConfig),
    "properties": (PropertyHead, PropertyHeadConfig),
}
_PARTS_SINCE: dict[str, dict[str, Any]] = {"template": dict.fromkeys(SWITCHES, False)}
"""Switches of parts that weights written before those parts do not name, and do not have."""
_METADATA_KEYS = {
    "format",
    "format_version",
    "versions",
    "precision",
    "networks",
    "sources",
    "process",
    "history",
}

FLOW: Mapping[str, str] = {"kind": "flow", "schedule": "linear", "solver": "ddim"}
"""The process of weights that name none."""


@dataclass(frozen=True)
class History:
    """Where weights come from.

    Attributes:
        data_hash: content hash of the store they were trained on.
        seed: of the last training.
        training: settings and cost by part: ``{"geometry": {"steps": ..., "minutes": ..., ...}}``.
        metrics: measured values by name.
        initial_weights: name of the weights the training started from.
        attribution: sources of the data and their terms, one line each.
    """

    data_hash: str | None = None
    seed: int | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    initial_weights: str | None = None
    attribution: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Everything sampling needs; a part that was not trained is None.

    Attributes:
        geometry: network of lattice and free coordinates.
        weak: a smaller or less trained one of the same noise, which autoguidance leads away from.
        template: network of groups, positions and elements.
        properties: head that reads properties off the geometry network.
        lattice_mean, lattice_std: statistics of the lattice noise the geometry network was trained with.
        process: kind of that noise, and the schedule and solver to sample with, by name (``processes.choice``).
        process_tables: what was learned of the noise while training, by name.
        sources: name of each data source token, token 1 first; token 0 is the unknown source.
        history: where the weights come from.
        versions: versions of nucleate and torch that wrote the file.
    """

    geometry: OrbitTransformer | None = None
    weak: OrbitTransformer | None = None
    template: TemplateTransformer | None = None
    properties: PropertyHead | None = None
    lattice_mean: Float[Tensor, "6"] | None = None
    lattice_std: Float[Tensor, "6"] | None = None
    process: Mapping[str, str] = field(default_factory=lambda: dict(FLOW))
    process_tables: Mapping[str, Tensor] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    history: History = field(default_factory=History)
    versions: Mapping[str, str] = field(default_factory=dict)

    def replace(self, **changes: Any) -> Checkpoint:
        """The checkpoint with some fields exchanged."""
        return replace(self, **changes)


def save_checkpoint(
    path: str | os.PathLike[str], checkpoint: Checkpoint, *, precision: Precision = "float16"
) -> Path:
    """Path of the file written; it appears complete or not at all.

    Weights are rounded to ``precision``, statistics and tables keep float32. The tables of features that the
    networks were trained with come along, so that a program with other tables refuses the weights.

    Raises:
        CheckpointError: nothing to save, or a weight is not finite in ``precision``.
    """
    target = Path(path)
    if precision not in get_args(Precision):
        raise CheckpointError(f"precision is one of {', '.join(get_args(Precision))}, got {precision!r}")
    tensors: dict[str, Tensor] = {}
    networks = {}
    for part in _KIND:
        network: nn.Module | None = getattr(checkpoint, part)
        if network is None:
            continue
        networks[part] = asdict(network.config)  # type: ignore[call-overload]
        for name, tensor in network.state_dict().items():
            tensors[f"{part}.{name}"] = _rounded(tensor, f"{part}.{name}", precision)
        for name, table in _tables(network).items():
            tensors[f"tables.{part}.{name}"] = table
    if not networks:
        raise CheckpointError("a checkpoint needs a geometry or a template network, got neither")
    if checkpoint.geometry is not None:
        if checkpoint.lattice_mean is None or checkpoint.lattice_std is None:
            raise CheckpointError("a geometry network needs lattice_mean and lattice_std beside it")
        tensors["lattice_mean"] = checkpoint.lattice_mean.detach().float().cpu().contiguous()
        tensors["lattice_std"] = checkpoint.lattice_std.detach().float().cpu().contiguous()
        for name, table in checkpoint.process_tables.items():
            tensors[f"process.{name}"] = table.detach().float().cpu().contiguous()
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "versions": {"nucleate": nucleate.__version__, "torch": torch.__version__},
        "precision": precision,
        "networks": networks,
        "sources": list(checkpoint.sources),
        "process": dict(checkpoint.process),
        "history": asdict(checkpoint.history),
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    part_file = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        save_file(tensors, part_file, metadata={"nucleate": json.dumps(_finite(metadata), allow_nan=False)})
        os.replace(part_file, target)
    finally:
        part_file.unlink(missing_ok=True)
    return target


def default_weights() -> Path:
    """The file of weights that comes with the package.

    Raises:
        CheckpointError: none comes with it.
    """
    folder = files("nucleate").joinpath("weights")
    found = sorted(p for p in Path(str(folder)).glob("*.safetensors"))
    if not found:
        raise CheckpointError(
            "No weights come with this nucleate: name a file with --weights, or train your own with "
            "`nucleate train DIR --out run` and use run/weights.safetensors"
        )
    return found[-1]


def load_checkpoint(path: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> Checkpoint:
    """The networks of a file, in float32 and evaluation mode; needs no trainer.

    Raises:
        CheckpointError: the file is missing or damaged, has another version or unknown entries, or was trained
            with other tables.
    """
    where = os.fspath(path)
    metadata, tensors = _read(where)
    unknown = set(metadata) - _METADATA_KEYS
    if unknown:
        raise CheckpointError(
            f"{where} has entries this nucleate does not know ({', '.join(sorted(unknown))}): update nucleate"
        )
    history = metadata["history"]
    _refuse_unknown(where, "history", history, History)
    parts: dict[str, Any] = {}
    for part, config in metadata["networks"].items():
        if part not in _KIND:
            raise CheckpointError(
                f"{where} has a network {part!r} this nucleate does not know: update nucleate"
            )
        parts[part] = _network(where, part, config, tensors).to(device).eval()
    if "geometry" in parts:
        for name in ("lattice_mean", "lattice_std"):
            if name not in tensors:
                raise CheckpointError(f"{where} is damaged: {name} is missing")
            parts[name] = tensors.pop(name).to(device)
    tables = [name for name in tensors if name.startswith("process.")]
    process_tables = {name.removeprefix("process."): tensors.pop(name).to(device) for name in tables}
    if tensors:
        raise CheckpointError(
            f"{where} has {len(tensors)} tensors that belong nowhere, such as {min(tensors)}"
        )
    return Checkpoint(
        **parts,
        process=metadata["process"],
        process_tables=process_tables,
        sources=tuple(metadata["sources"]),
        history=History(**{**history, "attribution": tuple(history.get("attribution", ()))}),
        versions=metadata["versions"],
    )


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What the header of a checkpoint says: format_version, versions, precision, networks, sources, history."""
    return _read(os.fspath(path), tensors=False)[0]


def _read(where: str, *, tensors: bool = True) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not os.path.isfile(where):
        raise CheckpointError(f"There are no weights at {where}: name a file written by `nucleate train`")
    try:
        with safetensors.safe_open(where, framework="pt") as stream:
            text = (stream.metadata() or {}).get("nucleate")
            # Copies: the tensors of a file are windows into it, and change with it.
            found = {name: stream.get_tensor(name).clone() for name in stream.keys()} if tensors else {}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{where} cannot be read as safetensors ({error}): copy the file again"
        ) from error
    try:
        metadata = json.loads(text or "{}")
    except ValueError as error:
        raise CheckpointError(f"The header of {where} is damaged ({error}): copy the file again") from error
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise CheckpointError(f"{where} holds no nucleate weights: name a file written by `nucleate train`")
    version = metadata.get("format_version")
    while version in _UPDATES:
        metadata = _UPDATES[version](metadata)
        version = metadata["format_version"]
    if version != FORMAT_VERSION:
        newer = isinstance(version, int) and version > FORMAT_VERSION
        raise CheckpointError(
            f"{where} has format version {version}, this nucleate reads {FORMAT_VERSION}: "
            + ("update nucleate" if newer else "train the weights again")
        )
    missing = _METADATA_KEYS - set(metadata)
    if missing:
        raise CheckpointError(f"The header of {where} is damaged: {', '.join(sorted(missing))} missing")
    return metadata, found


def update_v1_v2(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A header of format 1, which knew one process, in format 2: its weights are those of the flow, by Euler steps."""
    return {**metadata, "format_version": 2, "process": dict(FLOW)}


_UPDATES = {1: update_v1_v2}


def _refuse_unknown(where: str, what: str, values: Mapping[str, Any], kind: type) -> None:
    unknown = set(values) - {f.name for f in fields(kind)}
    if unknown:
        raise CheckpointError(
            f"The {what} of {where} has entries this nucleate does not know ({', '.join(sorted(unknown))}): "
            "update nucleate"
        )


def _network(where: str, part: str, config: Mapping[str, Any], tensors: dict[str, Tensor]) -> nn.Module:
    """The network of one part; takes its tensors out of the dictionary."""
    network_type, config_type = _KIND[part]
    _refuse_unknown(where, f"{part} network", config, config_type)
    sizes = {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
    sizes = _PARTS_SINCE.get(part, {}) | sizes
    network: nn.Module = network_type(config_type(**sizes))
    for name, table in _tables(network).items():
        stored = tensors.pop(f"tables.{part}.{name}", None)
        if stored is None:
            raise CheckpointError(f"{where} is damaged: the table {name} of the {part} network is missing")
        if stored.shape != table.shape or not torch.allclose(
            stored, table, rtol=TABLE_TOLERANCE, atol=TABLE_TOLERANCE
        ):
            raise CheckpointError(
                f"The {part} network of {where} was trained with another {name} than this nucleate has: "
                "use the version of nucleate that wrote it, or train again"
            )
    state = {}
    for name, own in network.state_dict().items():
        stored = tensors.pop(f"{part}.{name}", None)
        if stored is None or stored.shape != own.shape:
            found = "missing" if stored is None else f"of shape {tuple(stored.shape)}"
            raise CheckpointError(f"{where}: {part}.{name} is {found}, expected shape {tuple(own.shape)}")
        state[name] = stored.to(own.dtype)
    network.load_state_dict(state)
    return network


def _tables(network: nn.Module) -> dict[str, Tensor]:
    """Buffers that are no weights: they follow from the package's tables and must be those of the training."""
    own = set(network.state_dict())
    return {
        name: buffer.detach().float().cpu().clone()
        for name, buffer in network.named_buffers()
        if name not in own
    }


def _rounded(tensor: Tensor, name: str, precision: Precision) -> Tensor:
    if not tensor.is_floating_point():
        return tensor.detach().cpu().contiguous()
    rounded = tensor.detach().cpu().to(getattr(torch, precision)).clone().contiguous()
    if not torch.isfinite(rounded).all():
        raise CheckpointError(f"{name} has values that are not finite in {precision}; nothing was written")
    return rounded


def _finite(value: Any) -> Any:
    """The value with NaN and infinities as None: JSON has no word for them."""
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
