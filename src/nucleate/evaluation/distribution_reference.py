"""What the distribution of a set is compared with: numbers and fingerprints of samples of the reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

import numpy as np
import pyarrow as pa

from nucleate.crystal import Crystal
from nucleate.data.property_values import PROPERTY_PREFIX, as_numbers
from nucleate.data.store import Store
from nucleate.evaluation.context import Context
from nucleate.evaluation.fingerprints import fingerprints
from nucleate.evaluation.reference import Reference
from nucleate.evaluation.source_digest import source_digest
from nucleate.shapes import Bool, Float, Int

Part = Literal["train", "held_out"]

NO_REFERENCE = "needs a reference (--reference STORE)"

MOST_NUMBERS = 100_000
"""Most crystals of a part whose numbers (density, elements, ...) are compared."""

NUM_ELEMENTS = 118
_FINGERPRINT_CHUNK = 16
_COLUMNS = (
    "density",
    "num_atoms_primitive",
    "space_group_number",
    "prototype_key",
    "provenance.source",
    "atomic_numbers",
)


@dataclass(frozen=True, eq=False)
class Numbers:
    """What is counted and measured of a sample, one entry per crystal.

    Attributes:
        density: g/cm³.
        num_atoms_primitive: atoms per primitive cell.
        space_group_number: 1 to 230.
        prototype_key: group, template and stoichiometric pattern.
        source: data set each crystal comes from.
        elements: which elements each crystal has, column Z - 1.
        properties: numeric properties, NaN where a crystal has none.
    """

    density: Float[np.ndarray, "crystals"]
    num_atoms_primitive: Int[np.ndarray, "crystals"]
    space_group_number: Int[np.ndarray, "crystals"]
    prototype_key: np.ndarray
    source: np.ndarray
    elements: Bool[np.ndarray, "crystals 118"]
    properties: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of crystals."""
        return len(self.density)

    @property
    def num_elements(self) -> Int[np.ndarray, "crystals"]:
        """Number of different elements of each crystal."""
        return self.elements.sum(axis=1)

    @property
    def sources(self) -> tuple[str, ...]:
        """Data sets of the sample, in alphabetical order."""
        return tuple(str(name) for name in np.unique(self.source))

    def of_source(self, source: str) -> Numbers:
        """The crystals of one data set."""
        rows = self.source == source
        return Numbers(
            self.density[rows],
            self.num_atoms_primitive[rows],
            self.space_group_number[rows],
            self.prototype_key[rows],
            self.source[rows],
            self.elements[rows],
            {name: values[rows] for name, values in self.properties.items()},
        )


def ceiling_size(n: int, most: int) -> int:
    """Size of the training sample beside a set of n: the same, so that both have the same bias."""
    return max(1, min(n, most))


def clean_rows(rows: np.ndarray) -> np.ndarray:
    """The rows without NaN."""
    return rows[~np.isnan(rows).any(axis=1)]


def numeric_properties(reference: Reference) -> tuple[str, ...]:
    """Names of the measured quantities of the store, in alphabetical order: real numbers, not counts or labels."""
    columns = reference.store.manifest.properties
    return tuple(sorted(name for name, column in columns.items() if column.kind == "number"))


def sample_rows(total: int, n: int, *, seed: int) -> Int[np.ndarray, "rows"]:
    """Indices of a sample without repetition, ascending; all of them where there are not more than n."""
    if n >= total:
        return np.arange(total)
    return np.sort(np.random.default_rng([seed, total, n]).choice(total, size=n, replace=False))


def part_numbers(
    context: Context, part: Part, *, n: int = MOST_NUMBERS, properties: Sequence[str] = ()
) -> Numbers:
    """Numbers of a sample of at most n crystals of the training or the held-out part of the reference."""
    reference = _reference(context)
    names = sorted(properties)

    def build() -> dict[str, np.ndarray]:
        store: Store = getattr(reference, part)
        chosen = store.select(sample_rows(len(store), n, seed=context.seed))
        return _read_numbers(chosen, names)

    key = f"numbers {part} n={n} seed={context.seed} {' '.join(names)} {source_digest(__name__)[:8]}"
    arrays = reference.cached(key, build)
    unpacked = np.unpackbits(arrays.pop("elements"), axis=1, count=NUM_ELEMENTS).astype(bool)
    found = {name: arrays.pop(PROPERTY_PREFIX + name) for name in names}
    return Numbers(elements=unpacked, properties=found, **arrays)


def part_fingerprints(
    context: Context, part: Part, *, n: int
) -> tuple[Float[np.ndarray, "crystals 61"], Float[np.ndarray, "crystals 132"]]:
    """(structure, composition) fingerprints of a sample of at most n crystals of a part of the reference.

    Computed once per store, sample and version of the code, on the processes of the evaluation.
    """
    reference = _reference(context)

    def build() -> dict[str, np.ndarray]:
        store: Store = getattr(reference, part)
        rows = sample_rows(len(store), n, seed=context.seed)
        structure, composition = [], []
        for s, c in context.map(fingerprints, _chunks(store.select(rows))):
            structure.append(s)
            composition.append(c)
            context.report_progress(
                sum(map(len, structure)), len(rows), f"fingerprints of the reference ({part})"
            )
        return {"structure": np.concatenate(structure), "composition": np.concatenate(composition)}

    code = source_digest("nucleate.evaluation.fingerprints")[:8]
    arrays = reference.cached(f"fingerprints {part} n={n} seed={context.seed} {code}", build)
    return arrays["structure"], arrays["composition"]


def _chunks(store: Store) -> Iterator[list[Crystal]]:
    crystals = store.iter_crystals()
    while chunk := list(islice(crystals, _FINGERPRINT_CHUNK)):
        yield chunk


def _reference(context: Context) -> Reference:
    if context.reference is None:
        raise ValueError("the distribution of a set was compared without a reference")
    return context.reference


def _read_numbers(store: Store, properties: Sequence[str]) -> dict[str, np.ndarray]:
    columns = [*_COLUMNS, *(PROPERTY_PREFIX + name for name in properties)]
    tables, present = [], []
    for batch in store.iter_batches(columns):
        present.append(element_presence(batch.column("atomic_numbers")))
        tables.append(batch.drop_columns(["atomic_numbers"]))
    table = pa.concat_tables(tables) if tables else None
    if table is None:
        return {
            "density": np.zeros(0),
            "num_atoms_primitive": np.zeros(0, dtype=np.int64),
            "space_group_number": np.zeros(0, dtype=np.int64),
            "prototype_key": np.zeros(0, dtype=str),
            "source": np.zeros(0, dtype=str),
            "elements": np.zeros((0, -(-NUM_ELEMENTS // 8)), dtype=np.uint8),
            **{PROPERTY_PREFIX + name: np.zeros(0) for name in properties},
        }
    return {
        "density": table.column("density").to_numpy(),
        "num_atoms_primitive": table.column("num_atoms_primitive").to_numpy().astype(np.int64),
        "space_group_number": table.column("space_group_number").to_numpy().astype(np.int64),
        "prototype_key": np.array(table.column("prototype_key").to_pylist(), dtype=str),
        "source": np.array([s or "" for s in table.column("provenance.source").to_pylist()], dtype=str),
        "elements": np.packbits(np.concatenate(present), axis=1),
        **{PROPERTY_PREFIX + name: as_numbers(table.column(PROPERTY_PREFIX + name)) for name in properties},
    }


def element_presence(atomic_numbers: pa.ChunkedArray | pa.Array) -> Bool[np.ndarray, "crystals 118"]:
    """Which elements each row of a column of lists of atomic numbers has, column Z - 1; null has none."""
    joined = (
        atomic_numbers.combine_chunks() if isinstance(atomic_numbers, pa.ChunkedArray) else atomic_numbers
    )
    lists = joined.fill_null(pa.scalar([], type=joined.type)) if joined.null_count else joined
    rows = np.repeat(np.arange(len(lists)), np.diff(lists.offsets.to_numpy()))
    present = np.zeros((len(lists), NUM_ELEMENTS), dtype=bool)
    present[rows, lists.flatten().to_numpy().astype(np.int64) - 1] = True
    return present
