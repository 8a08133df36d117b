"""How crystals are sampled, as options that every benchmark of the generator has, with the package's own defaults."""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import asdict
from typing import Any

from nucleate.cli.generate import parse_strengths, parse_temperature
from nucleate.generation.generator import (
    AUTOGUIDANCE,
    CHARGE_WEIGHT,
    GUIDANCE,
    LATTICE_TEMPERATURE,
    RESTARTS,
    STEPS,
    TEMPERATURE,
)


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """--steps, --restarts, --autoguidance, --candidates, --ranked, temperatures, --charge-weight and more."""
    add = parser.add_argument_group("sampling").add_argument
    add("--steps", type=int, default=STEPS)
    add("--restarts", type=int, default=RESTARTS)
    add("--autoguidance", type=float, help=f"[default: {AUTOGUIDANCE:g} where the weights can]")
    add("--candidates", type=int, default=1, help="geometries per crystal, the likeliest kept")
    add("--ranked", type=int, default=0, help="templates drawn beforehand, the most frequent come first")
    add("--temperature", default=str(TEMPERATURE), help="of the templates")
    add(
        "--charge-weight",
        type=float,
        default=CHARGE_WEIGHT,
        help="of charge balance in the choice of elements",
    )
    add("--lattice-temperature", type=float, default=LATTICE_TEMPERATURE)
    add("--guidance", action="append", metavar="TERM=STRENGTH", help="[default: the package's]")
    add("--mixed-precision", action="store_true", help="matrix products in bfloat16")


def sampling_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Keywords of ``Generator.generate``."""
    return {
        "steps": options.steps,
        "restarts": options.restarts,
        "autoguidance": options.autoguidance,
        "candidates": options.candidates,
        "ranked": options.ranked,
        "temperature": parse_temperature(options.temperature),
        "charge_weight": options.charge_weight,
        "lattice_temperature": options.lattice_temperature,
        "guidance": parse_strengths(options.guidance) if options.guidance else dict(GUIDANCE),
        "mixed_precision": options.mixed_precision,
    }


def settings_label(settings: dict[str, Any]) -> str:
    """Twelve digits that tell settings apart, for the names of files kept between runs."""
    plain = {**settings, "temperature": asdict(settings["temperature"])}
    return hashlib.blake2b(json.dumps(plain, sort_keys=True).encode(), digest_size=6).hexdigest()
