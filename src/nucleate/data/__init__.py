"""Where crystals come from: sources, cleaning with reasons, the sharded store and its splits.

Reading a store needs numpy and pyarrow only. Building and exporting load the readers of foreign formats, so
these names are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nucleate.data.arrays import CrystalArrays
from nucleate.data.manifest import Manifest, PropertyColumn
from nucleate.data.record import Provenance, Record, Rejection, Source, Task
from nucleate.data.store import Store, StoredRecord

if TYPE_CHECKING:
    from nucleate.data.build import BuildProgress, BuildReport, build_store
    from nucleate.data.export import ExportReport, export_store
    from nucleate.data.sources import open_source

_LATE = {
    "BuildProgress": "nucleate.data.build",
    "BuildReport": "nucleate.data.build",
    "build_store": "nucleate.data.build",
    "ExportReport": "nucleate.data.export",
    "export_store": "nucleate.data.export",
    "open_source": "nucleate.data.sources",
}

__all__ = [
    "BuildProgress",
    "BuildReport",
    "CrystalArrays",
    "ExportReport",
    "Manifest",
    "PropertyColumn",
    "Provenance",
    "Record",
    "Rejection",
    "Source",
    "Store",
    "StoredRecord",
    "Task",
    "build_store",
    "export_store",
    "open_source",
]


def __getattr__(name: str) -> Any:
    """Names that load readers of foreign formats, imported on first use."""
    if name in _LATE:
        return getattr(importlib.import_module(_LATE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
