"""The manifest of a store: what is in it, where it came from, how it was made, and its shards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from nucleate.data.folder import Folder
from nucleate.data.schema import READABLE_VERSIONS, SCHEMA_VERSION
from nucleate.errors import StoreError

MANIFEST_FILE = "manifest.json"
REJECTED_FILE = "rejected.csv"
UNMATCHED_FILE = "unmatched.csv"
SHARD_FOLDER = "shards"
BUILD_FOLDER = ".build"
FORMAT = "nucleate-store"


@dataclass(frozen=True)
class Shard:
    """One Parquet file of a store.

    Attributes:
        file: name relative to the store.
        num_records: rows in it.
        num_bytes: its size.
        row_group_size: rows in each of its row groups but the last.
        checksum: BLAKE2b-128 of the file, 32 hexadecimal digits.
    """

    file: str
    num_records: int
    num_bytes: int
    row_group_size: int
    checksum: str


@dataclass(frozen=True)
class PropertyColumn:
    """One property of a store.

    Attributes:
        kind: ``flag``, ``integer``, ``number``, ``text``, or ``array1`` to ``array4`` (a tensor of that
            rank).
        unit: its unit as the source states it, None where unknown or where records disagree.
        count: records that have a value.
        units_seen: all units, where records disagree.
    """

    kind: str
    unit: str | None
    count: int
    units_seen: tuple[str, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """Everything about a store that is not a record.

    Attributes:
        content_hash: hash over all records and the rule of the split; the order of records does not matter.
        num_records: records in the store.
        num_rejected: inputs left out, each with its reason in ``rejected.csv``.
        reasons: how many inputs were left out for each category of reason.
        source: what was read: ``spec``, ``name``, ``licences`` and ``references``.
        encoding: ``symprec`` (Å), ``max_atoms``, ``keep_frame`` and the other settings of the encoding.
        split: rule of the split (``method``, ``seed``, ``fractions``, ``column``, ``limits``).
        split_counts: records in each split.
        properties: property columns by name.
        site_properties: what sites carried (moments, isotopes, ...): whether it is ``stored``, the number of
            ``records`` that have any beyond labels, and the number of records ``by_name``.
        tables: tables joined by id, with how many ids found no partner on either side.
        shards: the Parquet files, in the order of the records.
        settings: what ``build_store`` was asked for, to tell whether a repeated call means the same store.
        nucleate_version: version that wrote the store.
        schema_version: version of the columns.
    """

    content_hash: str
    num_records: int
    num_rejected: int
    reasons: Mapping[str, int]
    source: Mapping[str, Any]
    encoding: Mapping[str, Any]
    split: Mapping[str, Any]
    split_counts: Mapping[str, int]
    properties: Mapping[str, PropertyColumn]
    tables: Mapping[str, Any]
    shards: tuple[Shard, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    site_properties: Mapping[str, Any] = field(default_factory=dict)
    nucleate_version: str = ""
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> str:
        """The manifest as it stands in ``manifest.json``."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1, ensure_ascii=False) + "\n"


def read_manifest(folder: Folder) -> Manifest:
    """Manifest of the store in ``folder``.

    Raises:
        StoreError: there is no store, its build did not finish, it cannot be read, or another version wrote
            it.
    """
    where = folder.location
    try:
        text = folder.read_bytes(MANIFEST_FILE).decode()
    except (FileNotFoundError, NotADirectoryError) as error:
        if folder.exists(f"{BUILD_FOLDER}/settings.json"):
            raise StoreError(
                f"The store {where} is not finished: repeat the command that builds it, and it goes on"
            ) from error
        raise StoreError(
            f"There is no store at {where} (no {MANIFEST_FILE} in it): "
            "build one with `nucleate data build SOURCE --out DIR`"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{MANIFEST_FILE} of {where} cannot be read: {error}") from error
    try:
        content = json.loads(text)
        if not isinstance(content, dict) or content.pop("format") != FORMAT:
            raise KeyError("format")
        version = content["schema_version"]
    except (ValueError, KeyError) as error:
        raise StoreError(
            f"{MANIFEST_FILE} of {where} is damaged or not a nucleate store's ({error}): "
            "copy the store again or rebuild it"
        ) from error
    if version not in READABLE_VERSIONS:
        newer = isinstance(version, int) and version > SCHEMA_VERSION
        way_out = "update nucleate" if newer else "rebuild the store with `nucleate data build`"
        readable = " and ".join(map(str, READABLE_VERSIONS))
        raise StoreError(
            f"The store {where} has schema version {version}, this nucleate reads {readable}: {way_out}"
        )
    try:
        properties = {
            name: PropertyColumn(**{**column, "units_seen": tuple(column["units_seen"])})
            for name, column in content.pop("properties").items()
        }
        shards = tuple(Shard(**shard) for shard in content.pop("shards"))
        return Manifest(properties=properties, shards=shards, **content)
    except (TypeError, KeyError, AttributeError) as error:
        raise StoreError(
            f"{MANIFEST_FILE} of {where} is damaged ({error}): copy the store again or rebuild it"
        ) from error
