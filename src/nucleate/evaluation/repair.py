"""Pushing atoms apart and the density into bounds by the least displacement, inside the crystal's own symmetry.

The unknowns are the free coordinates u and the free lattice parameters p, so whatever comes out has the space
group it had. With A(p) the lattice, f the fractional coordinates and L = (V/N)^(1/3),

    minimise    1/N sum_orbits m |A_0^T (f(u) - f(u_0))|^2  +  L^2 |p - p_0|^2 / 3
    subject to  |A(p)^T (f_b + n - f_a)|  >=  t(z_a, z_b)     for every pair, own images included
                rho_min <= rho(p_0) <= rho_max, v_min <= v(p_0) <= v_max    (bounds on the first lattice parameter)

The first term is the mean squared displacement of the atoms in the cell, the second the mean squared stretch of a
vector of length L under the strain of the cell (p are coordinates of the logarithmic strain in an orthonormal basis).
Volumes per atom v are bounded by what the composition lets expect (``nucleate.physics.volume``), beside the density.
Pairs that become near on the way are added and the problem is solved again (sequential least squares, SLSQP).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.elements import mass_density
from nucleate.crystal.ragged import segment_positions
from nucleate.crystal.species import element_symbol
from nucleate.crystal.tables import group_arrays
from nucleate.errors import InvalidStructureError
from nucleate.evaluation.structure_validity import MAX_VOLUME_SPREADS, expected_volume
from nucleate.physics.density import MAXIMUM_DENSITY, MINIMUM_DENSITY
from nucleate.physics.distances import minimum_distance_matrix
from nucleate.physics.elements import NUM_ELEMENTS
from nucleate.physics.neighbours import neighbours_within
from nucleate.shapes import Float, Int

MARGIN = 1e-3
"""Relative distance beyond the least one that is aimed at, so that rounding does not undo the repair."""

WATCHED = 1.25
"""Pairs within this multiple of their least distance are constraints from the start."""

MAX_ROUNDS = 12

Outcome = Literal["nothing to do", "repaired", "impossible"]


@dataclass(frozen=True)
class Repair:
    """What became of a crystal.

    Attributes:
        outcome: ``nothing to do``, ``repaired`` or ``impossible``.
        crystal: the repaired crystal, in the same group, positions and elements; the given one otherwise.
        max_displacement: largest displacement of an atom inside the cell, Å.
        mean_displacement: root mean square over all atoms of the cell, Å.
        strain: largest principal logarithmic strain of the cell.
        volume_change: relative change of the volume.
        moved: what moved, in words: ``O 4f by 0.31 Å``.
        reason: why it could not be repaired, in one sentence; empty otherwise.
    """

    outcome: Outcome
    crystal: Crystal
    max_displacement: float = 0.0
    mean_displacement: float = 0.0
    strain: float = 0.0
    volume_change: float = 0.0
    moved: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Pairs from an orbit's representative to an atom, ``v = W B u_second - B u_first + constant``."""

    first: Int[np.ndarray, "pairs"]
    second: Int[np.ndarray, "pairs"]
    rotation: Int[np.ndarray, "pairs 3 3"]
    constant: Float[np.ndarray, "pairs 3"]
    least: Float[np.ndarray, "pairs"]


class _Problem:
    """One crystal as the functions of x = (free coordinates in Å of their own scale, lattice parameters)."""

    def __init__(self, crystal: Crystal, volumes: tuple[float, float]) -> None:
        self.crystal = crystal
        tables, positions = group_arrays(), crystal.position_ids
        self.basis = tables["basis"][positions]
        self.columns = [(o, c) for o, d in enumerate(crystal.num_free.tolist()) for c in range(d)]
        self.num_free = len(self.columns)
        self.lattice = crystal.lattice
        self.weights = crystal.multiplicities_primitive / crystal.num_atoms_primitive
        self.length = crystal.volume_per_atom ** (1 / 3)
        self.params = np.asarray(crystal.lattice_params, dtype=float)
        self.volume_bounds = math.log(volumes[0]) / math.sqrt(3), math.log(volumes[1]) / math.sqrt(3)
        # Beyond a stretch of e^1.5 a crystal is not repaired but replaced; it also keeps the search finite.
        shape = [(p - 1.5, p + 1.5) for p in self.params[1:].tolist()]
        self.bounds = [(None, None)] * self.num_free + [self.volume_bounds, *shape]
        # Each displacement d of the objective is linear in x: d = rows @ (x - x0).
        size = self.num_free + len(self.params)
        blocks = np.zeros((crystal.num_orbits, 3, size))
        for k, (orbit, column) in enumerate(self.columns):
            blocks[orbit, :, k] = self.lattice.T @ self.basis[orbit, :, column]
        stretch = np.zeros((len(self.params), size))
        stretch[:, self.num_free :] = np.eye(len(self.params)) * self.length / math.sqrt(3)
        rows = np.concatenate(
            [(blocks * np.sqrt(self.weights)[:, None, None]).reshape(-1, size), stretch], axis=0
        )
        self.metric = rows.T @ rows

    @property
    def start(self) -> np.ndarray:
        free = [self.crystal.free_coords[o, c] for o, c in self.columns]
        return np.concatenate([np.array(free, dtype=float), self.params])

    def crystal_at(self, x: np.ndarray) -> Crystal:
        free = self.crystal.free_coords.astype(float).copy()
        for value, (orbit, column) in zip(x[: self.num_free].tolist(), self.columns):
            free[orbit, column] = value
        return replace(self.crystal, free_coords=free, lattice_params=x[self.num_free :].copy())

    def lattice_at(self, params: np.ndarray) -> np.ndarray:
        return self.crystal.group.lattice_subspace.to_lattice(params, num_atoms=self.crystal.num_atoms)

    def pairs(self, x: np.ndarray, watched: float) -> _Pairs:
        """Pairs nearer than ``watched`` times their least distance, from representatives, each orbit pair once."""
        crystal = self.crystal_at(x)
        tables, number = group_arrays(), crystal.space_group_number
        orbit, within = segment_positions(tables["num_images"][crystal.position_ids])
        image = tables["images"][tables["image_start"][crystal.position_ids][orbit] + within]
        operation = image + tables["operation_start"][number - 1]
        coords = crystal.image_coords()
        to_primitive = np.linalg.inv(crystal.group.primitive_basis)
        least = minimum_distance_matrix()
        z = np.where(crystal.atomic_numbers <= NUM_ELEMENTS, crystal.atomic_numbers, 0)
        radius = watched * (1 + MARGIN) * float(least[np.ix_(z, z)].max())
        near = neighbours_within(crystal.primitive_lattice, coords @ to_primitive.T, radius=radius)
        # The first image of an orbit is its representative; every pair is equivalent to one that starts there.
        keep = (within[near.first] == 0) & (orbit[near.first] <= orbit[near.second])
        a, b = orbit[near.first], orbit[near.second]
        keep &= near.distances < watched * (1 + MARGIN) * least[z[a], z[b]]
        a, b, second = a[keep], b[keep], near.second[keep]
        shift = near.shifts[keep] @ crystal.group.primitive_basis.T
        rotation = tables["rotations"][operation[second]]
        origin = tables["origin"][crystal.position_ids]
        constant = (
            np.einsum("pij,pj->pi", rotation, origin[b])
            + tables["translations"][operation[second]]
            + shift
            - origin[a]
        )
        return _Pairs(a, b, rotation, constant, (1 + MARGIN) * least[z[a], z[b]])

    def squared(self, x: np.ndarray, pairs: _Pairs) -> tuple[np.ndarray, np.ndarray]:
        """((d / t)^2 - 1 of each pair, its derivative by x)."""
        free = np.zeros((self.crystal.num_orbits, 3))
        for value, (orbit, column) in zip(x[: self.num_free].tolist(), self.columns):
            free[orbit, column] = value
        points = np.einsum("oij,oj->oi", self.basis, free)
        vectors = (
            np.einsum("pij,pj->pi", pairs.rotation, points[pairs.second])
            - points[pairs.first]
            + pairs.constant
        )
        params = x[self.num_free :]
        lattice = self.lattice_at(params)
        cartesian = vectors @ lattice
        scale = pairs.least[:, None] ** 2
        derivative = np.zeros((len(vectors), len(x)))
        by_vector = 2 * cartesian @ lattice.T / scale
        for k, (orbit, column) in enumerate(self.columns):
            direction = self.basis[orbit, :, column]
            step = (pairs.second == orbit)[:, None] * (pairs.rotation @ direction)
            step = step - (pairs.first == orbit)[:, None] * direction
            derivative[:, k] = np.einsum("pi,pi->p", by_vector, step)
        for k in range(len(params)):
            h = np.zeros(len(params))
            h[k] = 1e-5
            change = (self.lattice_at(params + h) - self.lattice_at(params - h)) / 2e-5
            derivative[:, self.num_free + k] = (
                2 * np.einsum("pi,pi->p", cartesian, vectors @ change) / scale[:, 0]
            )
        return np.einsum("pi,pi->p", cartesian, cartesian) / scale[:, 0] - 1, derivative


def repair(
    crystal: Crystal,
    *,
    minimum_density: float = MINIMUM_DENSITY,
    maximum_density: float = MAXIMUM_DENSITY,
    volume_spreads: float = MAX_VOLUME_SPREADS,
) -> Repair:
    """The nearest crystal of the same group, positions and elements without atoms that are too near.

    Least distances are those of ``nucleate.physics.distances``, by element pair; an atom and its own images are a
    pair. Where no free coordinate can part two atoms the cell grows; where the density bounds forbid that too, the
    crystal comes back unchanged with the reason.

    Args:
        crystal: what to repair.
        minimum_density: g/cm³.
        maximum_density: g/cm³.
        volume_spreads: standard deviations of ln(volume per atom) around that of the composition.

    Raises:
        InvalidStructureError: the cell is collapsed beyond searching for neighbours.
    """
    problem = _Problem(crystal, _volume_range(crystal, minimum_density, maximum_density, volume_spreads))
    start = problem.start
    low, high = problem.volume_bounds
    volume = start[problem.num_free]
    worst = _worst(problem, start)
    slack = 2 * MARGIN / math.sqrt(3)  # the bounds lie a margin inside those that are checked
    if worst >= 1 and low - slack <= volume <= high + slack:
        return Repair("nothing to do", crystal)
    candidates = [x for x in (_solve(problem, x) for x in _starts(problem, start)) if x is not None]
    if not candidates:
        return Repair("impossible", crystal, reason=_why(problem, start))
    best = min(candidates, key=lambda x: float((x - start) @ problem.metric @ (x - start)))
    return _described(problem, start, best)


def _volume_range(
    crystal: Crystal, minimum_density: float, maximum_density: float, spreads: float
) -> tuple[float, float]:
    """Least and largest volume per atom (Å³) that density and composition allow, a little inside the bounds."""
    mass = mass_density(crystal.composition, float(crystal.num_atoms_primitive))  # g/cm³ at 1 Å³ per atom
    dense, dilute = mass / maximum_density, mass / minimum_density
    expected = expected_volume(crystal.composition)
    if expected is not None:
        low, high = (expected[0] * math.exp(sign * spreads * expected[1]) for sign in (-1, 1))
        # Where the two contradict each other (solid hydrogen) the density decides.
        if max(low, dense) < min(high, dilute):
            dense, dilute = max(low, dense), min(high, dilute)
    inside = MARGIN * (dilute - dense)
    return dense + min(inside, MARGIN * dense), dilute - min(inside, MARGIN * dilute)


def _worst(problem: _Problem, x: np.ndarray) -> float:
    """Smallest distance over least distance; infinite where nobody is near."""
    pairs = problem.pairs(x, 1.0)
    if not len(pairs.first):
        return math.inf
    values, _ = problem.squared(x, pairs)
    return math.sqrt(max(0.0, float(values.min()) + 1)) * (1 + MARGIN)


def _starts(problem: _Problem, start: np.ndarray) -> list[np.ndarray]:
    """Where the search begins: the crystal itself, and the crystal inflated until nobody is too near."""
    low, high = problem.volume_bounds
    inside = start.copy()
    inside[problem.num_free] = min(max(start[problem.num_free], low), high)
    starts = [inside]
    worst = _worst(problem, inside)
    if worst < 1:
        inflated = inside.copy()
        inflated[problem.num_free] = min(
            inside[problem.num_free] - math.sqrt(3) * math.log(worst * 0.999), high
        )
        starts.append(inflated)
    return starts


def _solve(problem: _Problem, x: np.ndarray) -> np.ndarray | None:
    """A feasible point near ``x``, least in the objective around there; None where none was found."""
    from scipy.optimize import minimize  # noqa: PLC0415  scipy.optimize loads when something is repaired

    origin, metric = problem.start, problem.metric
    known: list[_Pairs] = []
    watched = 0
    for _ in range(MAX_ROUNDS):
        try:
            known.append(problem.pairs(x, WATCHED))
        except InvalidStructureError:
            return None
        pairs = _joined(known)
        if len(known) > 1 and len(pairs.first) == watched:
            return None  # the same problem again would have the same answer
        watched = len(pairs.first)
        found = minimize(
            lambda y: float((y - origin) @ metric @ (y - origin)),
            x,
            jac=lambda y: 2 * metric @ (y - origin),
            bounds=problem.bounds,
            constraints=[
                {
                    "type": "ineq",
                    "fun": lambda y, p=pairs: problem.squared(y, p)[0],
                    "jac": lambda y, p=pairs: problem.squared(y, p)[1],
                }
            ]
            if len(pairs.first)
            else [],
            method="SLSQP",
            options={"maxiter": 200, "ftol": 1e-10},
        )
        if not np.isfinite(found.x).all():
            return None
        x = found.x
        try:
            feasible = _worst(problem, x) >= 1 and _in_bounds(problem, x)
        except InvalidStructureError:
            return None
        if feasible:
            return x
    return None


def _in_bounds(problem: _Problem, x: np.ndarray) -> bool:
    low, high = problem.volume_bounds
    return bool(low - 1e-9 <= x[problem.num_free] <= high + 1e-9)


def _joined(known: list[_Pairs]) -> _Pairs:
    """All pairs seen so far, each once."""
    names = ("first", "second", "rotation", "constant", "least")
    arrays = {name: np.concatenate([getattr(p, name) for p in known]) for name in names}
    key = np.concatenate(
        [
            arrays["first"][:, None],
            arrays["second"][:, None],
            arrays["rotation"].reshape(len(arrays["first"]), 9),
            np.rint(24 * arrays["constant"]),
        ],
        axis=1,
    ).astype(np.int64)
    _, once = np.unique(key, axis=0, return_index=True)
    return _Pairs(**{name: array[once] for name, array in arrays.items()})


def _described(problem: _Problem, start: np.ndarray, x: np.ndarray) -> Repair:
    given, crystal = problem.crystal, problem.crystal_at(x)
    displacement = np.linalg.norm((crystal.representatives - given.representatives) @ problem.lattice, axis=1)
    change = crystal.lattice - given.lattice
    deformation = np.eye(3) + np.linalg.solve(given.lattice, change)
    logs = np.log(np.linalg.svd(deformation, compute_uv=False))
    stretch = float(logs[np.abs(logs).argmax()])
    moved = [
        f"{element_symbol(int(z))} {position.label} by {d:.3f} Å"
        for z, position, d in zip(given.atomic_numbers, given.positions, displacement)
        if d >= 5e-4
    ]
    ratio = crystal.volume_per_atom / given.volume_per_atom
    if abs(stretch) >= 5e-5:
        moved.append(f"the cell by {math.expm1(stretch):+.2%} at most, its volume by {ratio - 1:+.2%}")
    weights = problem.weights
    return Repair(
        "repaired",
        crystal,
        max_displacement=float(displacement.max()),
        mean_displacement=float(np.sqrt((weights * displacement**2).sum())),
        strain=abs(stretch),
        volume_change=ratio - 1,
        moved=tuple(moved),
    )


def _why(problem: _Problem, start: np.ndarray) -> str:
    """Why no repair was found, for people."""
    crystal = problem.crystal
    bounded = _starts(problem, start)[0]  # a crystal that is too dilute clashes only once it is compressed
    pairs = problem.pairs(bounded, 1.0)
    general = (
        "no free coordinates and cell within the bounds of density and volume were found that part all atoms of space "
        f"group {crystal.space_group_number} ({crystal.num_free_coords} free coordinates): too many atoms for the "
        "room, or a subgroup is needed"
    )
    if not len(pairs.first):
        return general
    values, slopes = problem.squared(bounded, pairs)
    worst = int(values.argmin())
    a, b = (element_symbol(int(crystal.atomic_numbers[o[worst]])) for o in (pairs.first, pairs.second))
    labels = [crystal.positions[o[worst]].label for o in (pairs.first, pairs.second)]
    distance = math.sqrt(values[worst] + 1) * pairs.least[worst]
    text = f"{a} {labels[0]} and {b} {labels[1]} are {distance:.3f} Å apart and need {pairs.least[worst]:.3f} Å; "
    fixed = not np.abs(slopes[worst, : problem.num_free]).max(initial=0.0) > 1e-9
    needed = bounded[problem.num_free] - math.sqrt(3) / 2 * math.log(values[worst] + 1)
    if fixed and needed > problem.volume_bounds[1]:
        density = crystal.density * crystal.volume_per_atom / math.exp(math.sqrt(3) * needed)
        return (
            f"{text}symmetry fixes both, and a cell large enough would have {density:.3g} g/cm³, too dilute for "
            "this composition: these positions cannot hold these elements"
        )
    return text + general
