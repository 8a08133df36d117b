"""Hashes of code: what a module decided is computed again when the module changes."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from functools import cache
from pathlib import Path

from nucleate.errors import ConfigError


@cache
def source_digest(module: str) -> str:
    """Hash of the source of a module, without importing it."""
    loaded = getattr(sys.modules.get(module), "__file__", None)
    spec = None if loaded else importlib.util.find_spec(module)
    file = loaded or (spec.origin if spec else None)
    if file is None:
        raise ConfigError(f"There is no module {module!r} whose code could decide a row")
    return hashlib.blake2b(Path(file).read_bytes(), digest_size=16).hexdigest()
