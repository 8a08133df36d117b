"""Structures of a store as files other programs read: one per record, decoded, named by its id."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nucleate.data.file_names import FileNames
from nucleate.data.folder import LocalFolder, is_url
from nucleate.data.store import Store, StoredRecord
from nucleate.errors import StoreError

LIST_FILE = "index.csv"
SETTINGS_FILE = ".export.json"


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


def as_cif(record: StoredRecord) -> str:
    """The crystal as CIF with operations, Wyckoff letters and multiplicities."""
    return record.crystal.to_cif(name=record.id)


def as_poscar(record: StoredRecord) -> str:
    """The conventional cell as POSCAR, the id and the formula in its first line."""
    return record.crystal.to_poscar(comment=" ".join(f"{record.id} {record.crystal.formula}".split()))


def as_extxyz(record: StoredRecord) -> str:
    """The conventional cell as extended XYZ; id, group and properties stand in the comment line."""
    from ase.io import write  # noqa: PLC0415  formats load late

    atoms = record.crystal.to_atoms()
    atoms.info = {"id": record.id, "space_group_number": record.crystal.space_group_number}
    atoms.info.update({name.replace(" ", "_"): value for name, value in record.properties.items()})
    text = io.StringIO()
    write(text, atoms, format="extxyz", write_results=False)
    return text.getvalue()


FORMATS: dict[str, tuple[str, Callable[[StoredRecord], str]]] = {
    "cif": (".cif", as_cif),
    "poscar": (".vasp", as_poscar),
    "extxyz": (".extxyz", as_extxyz),
}


def export_store(
    store: Store,
    out: str | os.PathLike[str],
    *,
    format: str = "cif",
    on_progress: Callable[[int, int], None] | None = None,
) -> ExportReport:
    """Files of all records of a store or of a selection (``store.split("test")``), one per record.

    A file appears whole or not at all, so an interrupted export goes on where it stopped. ``index.csv`` says
    which record is in which file. The names do not depend on the selection.

    Args:
        store: what to write.
        out: folder; new, empty, or of an earlier export of the same store in the same format.
        format: ``cif``, ``poscar`` (written as ``.vasp``) or ``extxyz``.
        on_progress: called with the records done and their number.

    Raises:
        StoreError: unknown format, or the folder holds something else.
    """
    if format not in FORMATS:
        raise StoreError(f"There is no export format {format!r}: choose one of {', '.join(FORMATS)}")
    if is_url(out):
        raise StoreError(
            f"Structures are exported to a local folder, {os.fspath(out)} is a URL: copy them there after"
        )
    ending, write = FORMATS[format]
    folder = LocalFolder(Path(out))
    _prepare(folder, {"content_hash": store.content_hash, "format": format})
    names = FileNames(
        record_id for batch in store.whole().iter_batches(["id"]) for record_id in batch[0].to_pylist()
    )
    num_written = num_kept = 0
    with folder.writing(LIST_FILE) as path, path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["id", "file"])
        for record in store:
            name = names.stem(record.id) + ending
            if folder.exists(name):
                num_kept += 1
            else:
                folder.write_bytes(name, write(record).encode())
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
                f"{folder.location} holds an export of another store or format: name a new folder"
            )
        folder.remove_unfinished("")
    elif folder.path.exists() and any(folder.path.iterdir()):
        raise StoreError(f"{folder.location} is not empty: name a new folder for the structures")
    folder.write_bytes(SETTINGS_FILE, json.dumps(settings).encode())
