"""Functions of the user's own, named as ``module:function`` on the command line."""

from __future__ import annotations

import sys
from pathlib import Path


def look_in_current_folder() -> None:
    """Modules are found in the current folder from here on: an installed command does not look there by itself."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
