"""Where crystals come from: sources, cleaning with reasons, the sharded store and its splits.

Reading a store needs numpy and pyarrow only. Building and exporting load the readers of foreign formats, so
these names are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nucleate.data.arrays import CrystalArrays
from nucleate.data.manifest import Manifest, PropertyColumn
from nucleate.data.record import Provenance, Record, Rejection, Source, Task
from nucleate.data.store import Store, StoredRecord
from nucleate.late import late_name

if TYPE_CHECKING:
    from nucleate.data.build import BuildProgress, BuildReport, build_store
    from nucleate.data.export import ExportReport, export_store
    from nucleate.data.sources import open_source

_LATE = {
    "BuildProgress": "build",
    "BuildReport": "build",
    "build_store": "build",
    "ExportReport": "export",
    "export_store": "export",
    "open_source": "sources",
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
    return late_name(__name__, _LATE, name)
