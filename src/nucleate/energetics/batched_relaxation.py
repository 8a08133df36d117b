"""Relaxation of many crystals together: one model call per round for all that are under way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nucleate.crystal.crystal import Crystal
from nucleate.energetics.cache import ResultCache
from nucleate.energetics.potential import Potential, evaluate_each
from nucleate.energetics.records import relaxation_from_json, relaxation_key, relaxation_to_json
from nucleate.energetics.relaxation import Relaxation, RelaxationPath, RelaxationSettings


@dataclass
class _Active:
    index: int
    key: str
    path: RelaxationPath
    atoms: int


def relax(
    crystals: Iterable[Crystal],
    potential: Potential,
    *,
    settings: RelaxationSettings | None = None,
    cache: ResultCache | None = None,
    batch_atoms: int = 128,
) -> list[Relaxation]:
    """Relaxations of all crystals, in order; see ``relax_stream``."""
    crystals = list(crystals)
    found = dict(relax_stream(crystals, potential, settings=settings, cache=cache, batch_atoms=batch_atoms))
    return [found[index] for index in range(len(crystals))]


def relax_stream(
    crystals: Iterable[Crystal],
    potential: Potential,
    *,
    settings: RelaxationSettings | None = None,
    cache: ResultCache | None = None,
    batch_atoms: int = 128,
) -> Iterator[tuple[int, Relaxation]]:
    """Pairs (place in the input, relaxation) as they finish; the input is read as far as there is room.

    Every crystal is relaxed in its own space group and Wyckoff positions (``SymmetricCoordinates``) by a quasi-Newton
    method that starts from a model of its stiffness. All that are under way go through the potential together, each
    leaves when it has ended, and the next takes its place; one that fails ends with its reason and stops no other.
    The path of a crystal does not depend on which others are under way, but for the rounding of the model.

    Args:
        crystals: any number, streamed.
        potential: what gives energies.
        settings: convergence criterion, pressure and limits.
        cache: results of finished relaxations are taken from here and kept here.
        batch_atoms: atoms that are under way together, and most in one call of the potential.
    """
    settings = settings or RelaxationSettings()
    source = enumerate(crystals)
    active: list[_Active] = []
    more = True
    while more or active:
        atoms = sum(entry.atoms for entry in active)
        while more and (not active or atoms < batch_atoms):
            try:
                index, crystal = next(source)
            except StopIteration:
                more = False
                break
            key = relaxation_key(crystal, potential, settings) if cache is not None else ""
            stored = cache.get(key) if cache is not None else None
            if stored is not None:
                yield index, relaxation_from_json(stored)
                continue
            path = RelaxationPath(crystal, settings)
            active.append(_Active(index, key, path, crystal.num_atoms_primitive))
            atoms += crystal.num_atoms_primitive
        waiting = [entry for entry in active if entry.path.pending is not None]
        cells = [
            entry.path.pending.unit_cell("primitive") for entry in waiting if entry.path.pending is not None
        ]
        for entry, evaluation in zip(waiting, evaluate_each(potential, cells, batch_atoms=batch_atoms)):
            entry.path.observe(evaluation)
        for entry in active:
            if entry.path.finished:
                relaxation = entry.path.result()
                if cache is not None:
                    cache.put(entry.key, relaxation_to_json(relaxation))
                yield entry.index, relaxation
        active = [entry for entry in active if not entry.path.finished]
