"""Endless batches of a store's crystals: windows of it in memory, order drawn anew each time, size-aware."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pyarrow.compute as pc
import torch
from torch import Tensor

from nucleate.crystal.batch import CrystalBatch
from nucleate.crystal.lattice_torch import MAX_LATTICE_PARAMS, free_lattice_params
from nucleate.data.arrays import arrays_from_table
from nucleate.data.property_values import PROPERTY_PREFIX, as_numbers
from nucleate.data.schema import CRYSTAL_COLUMNS, ROW_GROUP_SIZE
from nucleate.data.store import Store
from nucleate.errors import TrainingError
from nucleate.shapes import Float, Int
from nucleate.training.sampling_weights import SamplingWeights

WINDOW = 200_000
"""Crystals in memory at a time, about 30 MB per 100,000."""

_SOURCE_COLUMN = "provenance.source"


@dataclass(frozen=True)
class SizeLimits:
    """How much goes into one batch, and which crystals go into none.

    Attributes:
        crystals, edges, atoms: most of each in a batch; edges of the neighbour graph are estimated.
        orbits_each, atoms_each: a crystal with more is left out.
        radius: of the neighbour graph, in units of (volume per atom)^(1/3).
    """

    crystals: int
    edges: int
    atoms: int
    orbits_each: int
    atoms_each: int
    radius: float

    def edges_of(self, num_orbits: Int[Tensor, "crystals"]) -> Int[Tensor, "crystals"]:
        """Expected edges of each crystal: every orbit sees ``4/3 pi radius^3`` images."""
        return num_orbits * math.ceil(4 / 3 * math.pi * self.radius**3)


@dataclass(frozen=True)
class Cursor:
    """Where in the endless stream the next batch begins."""

    epoch: int = 0
    window: int = 0
    position: int = 0

    def to_dict(self) -> dict[str, int]:
        """The three numbers by name."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class SourcedCrystals:
    """Crystals with the data source token and the row in the store of each.

    Attributes:
        crystals: the crystals.
        source: data source token.
        rows: row in the store.
        labels: properties that were asked for, NaN where the store has none.
    """

    crystals: CrystalBatch
    source: Int[Tensor, "crystals"]
    rows: Int[Tensor, "crystals"]
    labels: Float[Tensor, "crystals properties"] | None = None

    def __len__(self) -> int:
        return len(self.source)

    def take(self, index: Int[Tensor, "chosen"]) -> SourcedCrystals:
        """The chosen crystals."""
        labels = None if self.labels is None else self.labels[index]
        return SourcedCrystals(self.crystals[index], self.source[index], self.rows[index], labels)

    def to(self, device: torch.device | str) -> SourcedCrystals:
        """The crystals on another device; rows stay where they are."""
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, crystals=self.crystals.to(device), source=self.source.to(device), labels=labels)


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """One batch and the cursor that leads to the next."""

    content: SourcedCrystals
    after: Cursor

    def __len__(self) -> int:
        return len(self.content)

    def to(self, device: torch.device | str) -> TrainingBatch:
        """The batch on another device."""
        return replace(self, content=self.content.to(device))


@dataclass(frozen=True, eq=False)
class ValidationBatch:
    """One of the validation batches.

    Attributes:
        content: its crystals.
        number: its place among the batches of all ranks; its noise is drawn from that.
        counts: False where it only stands in for a batch that a rank has not: every rank has as many.
    """

    content: SourcedCrystals
    number: int
    counts: bool = True

    def __len__(self) -> int:
        return len(self.content)

    def to(self, device: torch.device | str) -> ValidationBatch:
        """The batch on another device."""
        return replace(self, content=self.content.to(device))


def source_names(store: Store) -> tuple[str, ...]:
    """Every data source of a store, sorted: token k is the k-th, counting from 1."""
    names: set[str] = set()
    for table in store.iter_batches([_SOURCE_COLUMN], 65_536):
        names |= set(table.column(0).unique().to_pylist())
    return tuple(sorted(name for name in names if name))


def load_crystals(store: Store, tokens: Mapping[str, int], properties: Sequence[str] = ()) -> SourcedCrystals:
    """All crystals of a store or selection, in order, in float32; a source without token gets 0."""
    parts, sources, labels = [], [], []
    columns = [PROPERTY_PREFIX + name for name in properties]
    rows, done = store.rows, 0
    for table in store.iter_batches([*CRYSTAL_COLUMNS, _SOURCE_COLUMN, *columns], 65_536):
        arrays = arrays_from_table(table, rows[done : done + table.num_rows], {})
        done += table.num_rows
        counts = np.diff(arrays.lattice_offsets)
        params = np.zeros((len(arrays), MAX_LATTICE_PARAMS))
        params[np.arange(MAX_LATTICE_PARAMS) < counts[:, None]] = arrays.lattice_params
        parts.append(
            CrystalBatch.from_arrays(
                space_group_number=arrays.space_group_number,
                lattice_params=params,
                num_orbits=np.diff(arrays.orbit_offsets),
                wyckoff_indices=arrays.wyckoff_indices,
                atomic_numbers=arrays.atomic_numbers,
                free_coords=arrays.free_coords.copy(),  # pyarrow's memory is read-only
                dtype=torch.float32,
            )
        )
        values = [as_numbers(table.column(name)) for name in columns]
        labels.append(
            torch.tensor(np.array(values).T.reshape(table.num_rows, len(columns)), dtype=torch.float32)
        )
        sources += [tokens.get(name, 0) for name in table.column(_SOURCE_COLUMN).to_pylist()]
    if not parts:
        raise TrainingError(f"{store.location} has no crystals to train on")
    return SourcedCrystals(
        CrystalBatch.cat(parts), torch.tensor(sources), torch.as_tensor(rows.copy()), torch.cat(labels)
    )


def fitting(pool: SourcedCrystals, limits: SizeLimits) -> SourcedCrystals:
    """The crystals that are small enough to be in a batch."""
    crystals = pool.crystals
    small = (crystals.num_orbits <= limits.orbits_each) & (crystals.num_atoms_primitive <= limits.atoms_each)
    return pool.take(torch.nonzero(small)[:, 0])


def num_too_large(store: Store, limits: SizeLimits) -> int:
    """Crystals of a store or selection that ``fitting`` leaves out; reads the two columns that say so."""
    count = 0
    for table in store.iter_batches(["wyckoff_indices", "num_atoms_primitive"], 65_536):
        orbits = pc.list_value_length(table.column("wyckoff_indices")).to_numpy()
        atoms = table.column("num_atoms_primitive").to_numpy()
        count += int(((orbits > limits.orbits_each) | (atoms > limits.atoms_each)).sum())
    return count


def difficulty(crystals: CrystalBatch) -> Float[Tensor, "crystals"]:
    """Share of the crystals that have fewer free numbers (lattice parameters and coordinates) than each.

    A rock salt has one, so cubic crystals on fixed positions come first and low symmetries with many orbits
    last.
    """
    free = free_lattice_params(crystals.space_group_number).sum(dim=1)
    free = free.index_add(0, crystals.orbit_to_crystal, crystals.num_free)
    return torch.searchsorted(free.sort().values, free).float() / len(free)


def next_batch(
    order: Sequence[int],
    start: int,
    sizes: Sequence[tuple[int, int]],
    limits: SizeLimits,
    allowed: Sequence[bool],
) -> tuple[list[int], int]:
    """(crystals, place in ``order`` after them) of the next batch within the limits; at least one if any is left.

    Args:
        order: crystals in the order they are to come.
        start: first place to look at.
        sizes: atoms and edges of each crystal.
        limits: of the batch.
        allowed: crystals that may come now; the others are passed over.
    """
    chosen: list[int] = []
    num_atoms = num_edges = 0
    for place in range(start, len(order)):
        i = order[place]
        if not allowed[i]:
            continue
        atoms, edges = sizes[i]
        full = len(chosen) == limits.crystals
        if chosen and (full or num_atoms + atoms > limits.atoms or num_edges + edges > limits.edges):
            return chosen, place
        chosen.append(i)
        num_atoms, num_edges = num_atoms + atoms, num_edges + edges
    return chosen, len(order)


def crystal_sizes(pool: SourcedCrystals, limits: SizeLimits) -> list[tuple[int, int]]:
    """Atoms (primitive cell) and expected edges of each crystal."""
    crystals = pool.crystals
    return list(zip(crystals.num_atoms_primitive.tolist(), limits.edges_of(crystals.num_orbits).tolist()))


def in_batches(pool: SourcedCrystals, limits: SizeLimits) -> list[SourcedCrystals]:
    """The crystals in their order, cut into batches within the limits."""
    sizes, allowed = crystal_sizes(pool, limits), [True] * len(pool)
    batches, place = [], 0
    while place < len(pool):
        chosen, place = next_batch(range(len(pool)), place, sizes, limits, allowed)
        batches.append(pool.take(torch.tensor(chosen)))
    return batches


class CrystalStream:
    """Batches without end; every crystal once per epoch, in an order drawn from (seed, epoch, window).

    With ``weights`` a crystal of weight w comes w times per epoch on average: as often as the whole part of w says, and
    once more with the probability of the rest.

    The store is read in windows of random row groups; one that holds everything is read once. Every rank of a
    distributed run goes through its own share of each window. ``ceiling()`` (0 to 1) is asked before each
    batch: crystals whose difficulty lies above wait for a later epoch.
    """

    def __init__(
        self,
        store: Store,
        *,
        tokens: Mapping[str, int],
        limits: SizeLimits,
        seed: int,
        rank: int = 0,
        num_ranks: int = 1,
        window: int = WINDOW,
        properties: Sequence[str] = (),
        weights: SamplingWeights | None = None,
        ceiling: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self.store, self.tokens, self.limits = store, dict(tokens), limits
        self.seed, self.rank, self.num_ranks, self.window = seed, rank, num_ranks, window
        self.ceiling, self.properties, self.weights = ceiling, tuple(properties), weights
        self.start = Cursor()
        self._loaded: tuple[tuple[int, int], SourcedCrystals] | None = None

    @property
    def num_windows(self) -> int:
        """Windows of an epoch."""
        return max(1, math.ceil(len(self.store) / self.window))

    def load_window(self, epoch: int, window: int) -> SourcedCrystals:
        """The crystals of one window that fit into a batch.

        Raises:
            TrainingError: there are none.
        """
        key = (epoch, window) if self.num_windows > 1 else (0, 0)
        if self._loaded is None or self._loaded[0] != key:
            store = self.store
            if self.num_windows > 1:
                size = min(ROW_GROUP_SIZE, max(1, self.window // 4))
                blocks = np.arange(0, len(store), size)
                order = self._rng(epoch, 0).permutation(blocks)
                mine = np.array_split(order, self.num_windows)[window]
                rows = (mine[:, None] + np.arange(size)).ravel()
                store = store.select(rows[rows < len(store)])
            pool = fitting(load_crystals(store, self.tokens, self.properties), self.limits)
            if not len(pool):
                raise TrainingError(
                    f"No crystal of {store.location} has at most {self.limits.orbits_each} orbits and "
                    f"{self.limits.atoms_each} atoms: raise max_orbits and max_atoms"
                )
            self._loaded = (key, pool)
        return self._loaded[1]

    def __iter__(self) -> Iterator[TrainingBatch]:
        """Batches from ``start`` on."""
        at = self.start
        while True:
            pool = self.load_window(at.epoch, at.window)
            sizes = crystal_sizes(pool, self.limits)
            order = self._order(pool, self._rng(at.epoch, at.window + 1))
            # ranked among those that come: were the simplest ones weighed 0, a low ceiling would let nothing through
            come = torch.as_tensor(np.unique(order))
            hardness = torch.full((len(pool),), math.inf)
            hardness[come] = difficulty(pool.crystals[come])
            share = max(1, len(order) // self.num_ranks)
            first = self.rank % len(order) * share
            mine = order[first : first + share].tolist()
            while at.position < len(mine):
                allowed = (hardness <= self.ceiling()).tolist()
                chosen, place = next_batch(mine, at.position, sizes, self.limits, allowed)
                if not chosen:
                    break
                at = replace(at, position=place)
                yield TrainingBatch(pool.take(torch.tensor(chosen)), at)
            last = at.window + 1 == self.num_windows
            at = Cursor(at.epoch + 1, 0) if last else Cursor(at.epoch, at.window + 1)

    def _order(self, pool: SourcedCrystals, rng: np.random.Generator) -> np.ndarray:
        """Crystals of an epoch's window in the order in which they come."""
        if self.weights is None:
            return rng.permutation(len(pool))
        weights = self.weights.of(pool.crystals, pool.source, self.tokens).numpy()
        copies = np.floor(weights + rng.random(len(pool))).astype(np.int64)
        order = rng.permutation(np.repeat(np.arange(len(pool)), copies))
        if not len(order):
            raise TrainingError(f"The sampling weights leave no crystal of {self.store.location}: raise them")
        return order

    def _rng(self, epoch: int, number: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, epoch, number])
