"""Sets of crystals for the table of ``evaluation_table.py``: peers' samples, controls, real crystals, our own.

Every set is made once from a seed and kept as a Parquet file (``id``, ``numbers``, ``lattice``, ``frac_coords``).
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_pools import cells_of
from nucleate.crystal import UnitCell
from nucleate.crystal.species import element_symbol
from nucleate.data import Store
from nucleate.physics import NUM_ELEMENTS, assign_oxidation_states, atomic_number, volume_per_atom


@dataclass(frozen=True, eq=False)
class CrystalSet:
    """A set of crystals with how it was made."""

    cells: list[UnitCell]
    note: str


def write_set(path: Path, made: CrystalSet) -> None:
    table = pa.table(
        {
            "id": [f"{path.stem}-{i:05d}" for i in range(len(made.cells))],
            "numbers": [cell.atomic_numbers.tolist() for cell in made.cells],
            "lattice": [cell.lattice.ravel().tolist() for cell in made.cells],
            "frac_coords": [cell.frac_coords.ravel().tolist() for cell in made.cells],
        }
    ).replace_schema_metadata({"note": made.note})
    scratch = path.with_suffix(".partial")
    pq.write_table(table, scratch)
    scratch.rename(path)


def note_of(path: Path) -> str:
    return (pq.read_schema(path).metadata or {}).get(b"note", b"").decode()


def _sample(table: pa.Table, n: int, seed: int) -> pa.Table:
    rows = np.random.default_rng(seed).permutation(len(table))[:n]
    return table.take(np.sort(rows))


def peer_set(data: Path, method: str, *, n: int, seed: int) -> CrystalSet:
    """Samples of another generator, as published."""
    table = pq.read_table(data / "peer_samples.parquet")
    table = table.filter(pc.equal(table["method"], method))
    return CrystalSet(cells_of(_sample(table, n, seed)), f"of {len(table)} published samples")


def held_out_set(store: Store, *, n: int, seed: int, part: str) -> CrystalSet:
    """Crystals of a split of the reference."""
    chosen = store.split(part)
    rows = np.sort(np.random.default_rng(seed).permutation(len(chosen))[:n])
    cells = [chosen.crystal(int(row)).unit_cell("primitive") for row in rows]
    return CrystalSet(cells, f"of {len(chosen)} crystals of the split {part}")


def random_set(store: Store, *, n: int, seed: int) -> CrystalSet:
    """Random symmetric crystals (pyxtal) with the compositions and groups of training crystals."""
    from pyxtal import pyxtal
    from pyxtal.msg import Comp_CompatibilityError, Symm_CompatibilityError, VolumeError

    rng = np.random.default_rng(seed)
    train = store.split("train")
    cells: list[UnitCell] = []
    refused = 0
    while len(cells) < n:
        crystal = train.crystal(int(rng.integers(len(train))))
        counts = crystal.composition
        species = [element_symbol(z) for z in counts]
        random = pyxtal()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                random.from_random(
                    3,
                    crystal.space_group_number,
                    species,
                    [m * crystal.num_atoms // crystal.num_atoms_primitive for m in counts.values()],
                    random_state=int(rng.integers(2**31)),
                )
        except (Comp_CompatibilityError, Symm_CompatibilityError, VolumeError, RuntimeError, ValueError):
            refused += 1
            continue
        if not random.valid:
            refused += 1
            continue
        atoms = random.to_ase(resort=False)
        cells.append(UnitCell(np.array(atoms.cell), atoms.get_scaled_positions(), np.array(atoms.numbers)))
    return CrystalSet(
        cells, f"pyxtal, composition and group of training crystals; {refused} draws found no crystal"
    )


def decorated_set(store: Store, *, n: int, seed: int) -> CrystalSet:
    """Training crystals with ions exchanged by pymatgen's substitution probabilities (Hautier et al. 2011)."""
    from pymatgen.analysis.structure_prediction.substitution_probability import SubstitutionProbability

    probability = SubstitutionProbability()
    rng = np.random.default_rng(seed)
    train = store.split("train")
    cells: list[UnitCell] = []
    without = 0
    while len(cells) < n:
        crystal = train.crystal(int(rng.integers(len(train))))
        counts = crystal.composition
        best = (
            assign_oxidation_states(counts, mixed_valence=False).best if max(counts) <= NUM_ELEMENTS else None
        )
        exchange = None if best is None or len(counts) < 2 else _exchange(probability, best, counts, rng)
        if exchange is None:
            without += 1
            continue
        cell = crystal.unit_cell("primitive")
        numbers = np.array([exchange[z] for z in cell.atomic_numbers.tolist()], dtype=np.int64)
        target = volume_per_atom(Counter(numbers.tolist())).mean * len(numbers)
        cells.append(UnitCell(cell.lattice * (target / cell.volume) ** (1 / 3), cell.frac_coords, numbers))
    return CrystalSet(
        cells,
        "ions of training crystals exchanged by pymatgen's substitution probabilities, charges balanced, volume by "
        f"nucleate.physics; {without} draws without oxidation states or a balanced exchange",
    )


def _exchange(probability, best, counts: dict[int, int], rng: np.random.Generator) -> dict[int, int] | None:
    """A charge-balanced exchange of one to all ions, drawn with its probability; None where no draw is."""
    from pymatgen.core import Species

    ions = {z: Species(element_symbol(z), state) for z, state in best.mean_states().items()}
    if any(ion not in probability.species for ion in ions.values()):
        return None
    pool = sorted(probability.species, key=str)
    weights = {z: np.array([probability.cond_prob(other, ion) for other in pool]) for z, ion in ions.items()}
    for _ in range(200):
        drawn = {z: pool[int(rng.choice(len(pool), p=w / w.sum()))] for z, w in weights.items()}
        symbols = [ion.symbol for ion in drawn.values()]
        charge = sum(ion.oxi_state * counts[z] for z, ion in drawn.items())
        if charge or len(set(symbols)) < len(symbols) or all(drawn[z] == ions[z] for z in ions):
            continue
        exchange = {z: atomic_number(ion.symbol) for z, ion in drawn.items()}
        return exchange if max(exchange.values()) <= NUM_ELEMENTS else None
    return None


def own_set(*, n: int, seed: int, candidates: int) -> CrystalSet:
    """Crystals of the weights that come with the package, nothing asked but the character of MP-20."""
    import nucleate

    generator = nucleate.load()
    source = "mp_20" if "mp_20" in generator.sources else None
    made = generator.generate(nucleate.Condition(source=source), n, seed, candidates=candidates)
    return CrystalSet(
        [crystal.unit_cell("primitive") for crystal in made],
        f"nucleate.load().generate, weights {generator.name}, source {source}, {candidates} candidates each",
    )


def iter_sets(
    data: Path, store: Store, *, n: int, seed: int, candidates: int, only: list[str]
) -> Iterator[tuple[str, Callable[[], CrystalSet]]]:
    """Name and maker of every set."""
    makers = {
        "held-out": lambda: held_out_set(store, n=n, seed=seed, part="val"),
        "training": lambda: held_out_set(store, n=n, seed=seed, part="train"),
        "nucleate": lambda: own_set(n=n, seed=seed, candidates=candidates),
        "CrystalFormer": lambda: peer_set(data, "CrystalFormer_mp20", n=n, seed=seed),
        "FlowMM": lambda: peer_set(data, "FlowMM_mp20_CHGNet_relaxed", n=n, seed=seed),
        "decoration": lambda: decorated_set(store, n=n, seed=seed),
        "random": lambda: random_set(store, n=n, seed=seed),
    }
    for name, maker in makers.items():
        if not only or name in only:
            yield name, maker
