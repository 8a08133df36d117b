"""Structures of a store as files other programs read: one per record, decoded, named by its id."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nucleate.crystal.unit_cell import UnitCell
from nucleate.data.export_formats import FORMATS
from nucleate.data.file_names import FileNames
from nucleate.data.folder import LocalFolder, is_url
from nucleate.data.store import Store, StoredRecord
from nucleate.errors import StoreError

LIST_FILE = "index.csv"
SETTINGS_FILE = ".export.json"
CELLS = ("conventional", "primitive", "original")


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote.

    Attributes:
        folder: where the files are.
        num_written: files written by this call.
        num_kept: files that an earlier, interrupted call had written.
    """

    folder: Path
    num_written: int
    num_kept: int


def _cells(store: Store, cell: str) -> Callable[[int, StoredRecord], UnitCell | None]:
    """What gives the cell of the record at an index; None stands for the standard way of the format.

    Raises:
        StoreError: there is no such cell, or the store does not have what it needs.
    """
    if cell == "conventional":
        return lambda index, record: None
    if cell == "primitive":
        return lambda index, record: record.crystal.unit_cell("primitive")
    if cell != "original":
        raise StoreError(f"There is no cell {cell!r}: choose one of {', '.join(CELLS)}")
    manifest = store.manifest
    way_out = "build it again with --keep-frame (keep_frame=True), or export --cell conventional"
    if not manifest.encoding.get("keep_frame"):
        raise StoreError(f"The store {store.location} does not keep the original cells: {way_out}")
    if manifest.schema_version < 2:
        raise StoreError(
            f"The store {store.location} has schema version {manifest.schema_version}, which does not keep site "
            f"properties: {way_out}"
        )
    return lambda index, record: store.encoded(index).unit_cell()


def export_store(
    store: Store,
    out: str | os.PathLike[str],
    *,
    format: str = "cif",
    cell: str = "conventional",
    on_progress: Callable[[int, int], None] | None = None,
) -> ExportReport:
    """Files of all records of a store or of a selection (``store.split("test")``), one per record.

    A file appears whole or not at all, so an interrupted export goes on where it stopped. ``index.csv`` says
    which record is in which file. The names do not depend on the selection.

    Args:
        store: what to write.
        out: folder; new, empty, or of an earlier export of the same store in the same format.
        format: ``cif``, ``poscar`` (written as ``.vasp``) or ``extxyz``.
        cell: ``conventional``, ``primitive``, or ``original``: the ideal crystal in the source's own cell,
            frame and order of atoms, with its site properties as far as the format can; needs a store built
            with ``keep_frame``. A CIF of another cell than the conventional one is in P1.
        on_progress: called with the records done and their number.

    Raises:
        StoreError: unknown format or cell, the store does not keep the original cells, or the folder holds
            something else.
    """
    if format not in FORMATS:
        raise StoreError(f"There is no export format {format!r}: choose one of {', '.join(FORMATS)}")
    if is_url(out):
        raise StoreError(
            f"Structures are exported to a local folder, {os.fspath(out)} is a URL: copy them there after"
        )
    ending, write = FORMATS[format]
    cell_of = _cells(store, cell)
    folder = LocalFolder(Path(out))
    _prepare(folder, {"content_hash": store.content_hash, "format": format, "cell": cell})
    names = FileNames(
        record_id for batch in store.whole().iter_batches(["id"]) for record_id in batch[0].to_pylist()
    )
    num_written = num_kept = 0
    with folder.writing(LIST_FILE) as path, path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["id", "file"])
        for index, record in enumerate(store):
            name = names.stem(record.id) + ending
            if folder.exists(name):
                num_kept += 1
            else:
                folder.write_bytes(name, write(record, cell_of(index, record)).encode())
                num_written += 1
            lines.writerow([record.id, name])
            if on_progress is not None:
                on_progress(num_written + num_kept, len(store))
    return ExportReport(folder.path, num_written, num_kept)


def _prepare(folder: LocalFolder, settings: dict[str, str]) -> None:
    """Make the folder, or make sure that what it holds is an earlier export of the same."""
    if folder.path.exists() and not folder.path.is_dir():
        raise StoreError(f"{folder.location} is a file: name a new folder for the structures")
    if folder.exists(SETTINGS_FILE):
        try:
            found = json.loads(folder.read_bytes(SETTINGS_FILE))
        except ValueError:
            found = None
        if found != settings:
            raise StoreError(
                f"{folder.location} holds an export of another store, format or cell: name a new folder"
            )
        folder.remove_unfinished("")
    elif folder.path.exists() and any(folder.path.iterdir()):
        raise StoreError(f"{folder.location} is not empty: name a new folder for the structures")
    folder.write_bytes(SETTINGS_FILE, json.dumps(settings).encode())
