"""JSON files told apart by how they begin: a list of JARVIS entries or an ASE database."""

from __future__ import annotations

import zipfile
from contextlib import closing

from nucleate.data.record import Source
from nucleate.data.sources.ase_database import AseDatabase
from nucleate.data.sources.dataset import Dataset
from nucleate.data.sources.jarvis import JarvisEntries, jarvis_dataset

SUFFIXES = (".json",)


def json_source(path: str, dataset: Dataset) -> Source:
    """The source for a JSON file: JARVIS entries if it is an array, an ASE database if it is an object.

    What is neither is named when its tasks are listed, so that one such file in a folder does not stop the
    others.
    """
    try:
        with open(path, "rb") as stream:
            head = stream.read(256).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError:
        head = b""
    if head.startswith(b"["):
        return JarvisEntries(path, None, jarvis_dataset(path, dataset))
    return AseDatabase(path, dataset)


def zipped_json_source(path: str, dataset: Dataset) -> Source | None:
    """The source for a zip with a single JSON file (as JARVIS distributes its sets), None for any other."""
    if not path.lower().endswith(".zip"):
        return None
    try:
        with closing(zipfile.ZipFile(path)) as archive:
            members = [info.filename for info in archive.infolist() if not info.is_dir()]
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return None
    if len(members) == 1 and members[0].lower().endswith(".json"):
        return JarvisEntries(path, members[0], jarvis_dataset(members[0], dataset))
    return None
