"""The option ``--property``: a property, the function that predicts it, and what was asked, in one word."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from nucleate.cli.current_folder import look_in_current_folder
from nucleate.errors import ConfigError

if TYPE_CHECKING:
    from nucleate.evaluation.property_targets import PropertyTarget

EXAMPLE = "band_gap=my_model:predict,unit=eV,low=1,high=2"
_NUMBERS = ("tolerance", "target", "low", "high")


def parse_property(text: str) -> PropertyTarget:
    """The target that ``NAME=MODULE:FUNCTION[,KEY=VALUE...]`` names.

    The keys are the other fields of ``PropertyTarget``: ``low``, ``high``, ``target``, ``tolerance``, ``unit``, and
    ``uncertainty=MODULE:FUNCTION``. Modules are looked for in the current folder too.

    Raises:
        ConfigError: the text is of another form, or there is no such function.
    """
    from nucleate.evaluation.property_targets import PropertyTarget  # noqa: PLC0415  (loads late)

    first, *others = (part.strip() for part in text.split(","))
    name, equals, function = first.partition("=")
    if not (name.strip() and equals and function.strip()):
        raise ConfigError(f"A property is NAME=MODULE:FUNCTION, such as {EXAMPLE}; got {text!r}")
    known = {field.name for field in fields(PropertyTarget)} - {"name", "predictor", "predicted_by"}
    options: dict[str, Any] = {}
    for other in others:
        key, equals, value = (part.strip() for part in other.partition("="))
        if not equals or key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(sorted(known))}"
            raise ConfigError(f"{other!r} in --property {name} is not KEY=VALUE of a property{hint}")
        options[key] = _value(name, key, value)
    return PropertyTarget(name.strip(), _function(function), predicted_by=function.strip(), **options)


def _value(name: str, key: str, value: str) -> Any:
    if key == "uncertainty":
        return _function(value)
    if key not in _NUMBERS:
        return value
    try:
        return float(value)
    except ValueError as error:
        raise ConfigError(f"{key} of --property {name} is a number, got {value!r}") from error


def _function(text: str) -> Callable[..., Any]:
    module, colon, attribute = (part.strip() for part in text.partition(":"))
    look_in_current_folder()
    try:
        found = getattr(importlib.import_module(module), attribute) if colon else None
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{text} cannot be loaded ({error}): name a module and a function in it") from error
    if not callable(found):
        raise ConfigError(f"{text!r} is no function of a list of crystals: name it as MODULE:FUNCTION")
    return found
