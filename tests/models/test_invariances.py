"""Turned space, other encodings, origins and supercells change nothing but the frame; broken networks see them.

Encodings: the representatives of orbits, the origin (shifts of the normalizer and floating origins), the axes
(linear parts of the normalizer) and the mirror image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
from broken_networks import (
    a_fixed_axis,
    handed_products,
    images_carry_one_orientation,
    letters_are_seen,
    one_image_per_pair,
    structure_factors_without_conjugate,
    sums_over_atoms,
)
from random_crystals import BRANCHED, GROUPS, SMALL, network, noisy, random_crystal

from nucleate.crystal import Crystal, CrystalBatch, space_group
from nucleate.crystal.lattice import STRAIN_BASIS
from nucleate.crystal.lattice_torch import lattices_from_params
from nucleate.crystal.reencode import Encodings, apply_maps, crystal_of, encodings_of, shift_along
from nucleate.models import orbit_transformer, reciprocal
from nucleate.models.orbit_transformer import Denoised, OrbitInputs, OrbitTransformer
from nucleate.models.tensors import tensor_rotations

FAMILIES = [2, 14, 62, 88, 92, 166, 194, 227]
CONFIGS = {"small": SMALL, "branched": BRANCHED}


@cache
def of(name: str) -> OrbitTransformer:
    return network(config=CONFIGS[name])


def deviation(found: torch.Tensor, expected: torch.Tensor, scale: torch.Tensor | None = None) -> float:
    """Largest difference over the largest value expected, or that of ``scale`` where it is larger."""
    largest = expected.abs().max()
    if scale is not None:
        largest = torch.maximum(largest, scale.abs().max())
    return float((found - expected).abs().max() / largest)


def worst(*deviations: float) -> float:
    """The largest, or NaN where one is."""
    return float(np.max(deviations))


# ---- O(3) ------------------------------------------------------------------------------------------------------


def orthogonal(determinant: int, seed: int) -> torch.Tensor:
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return torch.tensor(turn * determinant * np.sign(np.linalg.det(turn)))


def turn_space(patch: pytest.MonkeyPatch, turn: torch.Tensor) -> None:
    """Lattices, and what is known of a group in the frame of its reference lattice, after r -> Q r."""
    lattices, geometry = CrystalBatch.lattices, orbit_transformer.tensor_geometry
    matrices = tensor_rotations(turn[None])[0]

    def turned(*args):
        original = geometry(*args)
        return replace(original, projectors=matrices @ original.projectors @ matrices.T)

    strains = turn.numpy() @ STRAIN_BASIS @ turn.numpy().T
    patch.setattr(CrystalBatch, "lattices", lambda self: lattices(self) @ turn.T)
    patch.setattr(orbit_transformer, "tensor_geometry", turned)
    patch.setattr(reciprocal, "STRAIN_BASIS", strains)


def change_by_turning(name: str, number: int, determinant: int) -> float:
    """How far forces and stress are from Q f and Q S Q^T in the turned space, and scalars from the same."""
    model, given = of(name), noisy([random_crystal(number)])
    turn = orthogonal(determinant, number)
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        inputs = model.embed(given)
        before, cell = model.propagate(given.crystals, inputs), given.crystals.primitive_lattices()
        turn_space(patch, turn)
        after, turned_cell = model.propagate(given.crystals, inputs), given.crystals.primitive_lattices()
    torch.testing.assert_close(turned_cell, cell @ turn.T)
    return worst(
        deviation(after.forces, before.forces @ turn.T, before.stress),
        deviation(after.stress, turn @ before.stress @ turn.T),
        deviation(after.scalars, before.scalars),
    )


@pytest.mark.parametrize("number", GROUPS)
@pytest.mark.parametrize("name", CONFIGS)
def test_forces_and_stress_turn_with_space(name: str, number: int) -> None:
    assert change_by_turning(name, number, 1) < 1e-10
    assert change_by_turning(name, number, -1) < 1e-10


@pytest.mark.parametrize("determinant", [1, -1])
@pytest.mark.parametrize("number", FAMILIES)
@pytest.mark.parametrize("name", CONFIGS)
def test_a_fixed_axis_is_seen_when_space_is_turned(
    name: str, number: int, determinant: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_fixed_axis(monkeypatch)
    assert change_by_turning(name, number, determinant) > 1e-3


@pytest.mark.parametrize("number", [2, 14, 62, 88, 92, 166])
@pytest.mark.parametrize("name", CONFIGS)
def test_handed_products_are_seen_only_when_space_is_mirrored(
    name: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed_products(monkeypatch)
    assert change_by_turning(name, number, 1) < 1e-10
    assert change_by_turning(name, number, -1) > 1e-3


# ---- encodings of one crystal ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Encoding:
    """A crystal in other coordinates ``x' = L x + s``, up to translations of the lattice."""

    crystal: Crystal
    linear: np.ndarray
    shift: np.ndarray


def other_representatives(crystal: Crystal, rng: np.random.Generator) -> Encoding:
    free = crystal.free_coords.copy()
    for row, position in zip(free, crystal.positions):
        d, choice = position.num_free, rng.integers(len(position.identification_linear))
        if d:
            row[:d] = position.identification_linear[choice] @ row[:d]
            row[:d] += position.identification_shift[choice]
            row[:d] += position.period_lattice @ rng.integers(-1, 2, size=d)
    numbers = crystal.space_group_number, crystal.lattice_params, crystal.wyckoff_indices
    return Encoding(Crystal(*numbers, crystal.atomic_numbers, free), np.eye(3), np.zeros(3))


def _encoding(
    encodings: Encodings, crystal: Crystal, linear: np.ndarray, shift: np.ndarray, number: int | None = None
) -> Encoding:
    changed = crystal_of(encodings, 0, space_group_number=number or crystal.space_group_number, like=crystal)
    return Encoding(changed, linear, shift)


def encodings_by(change: str, crystal: Crystal, rng: np.random.Generator) -> list[Encoding]:
    """Up to two encodings of the crystal (three of its representatives); none where the group has no such change."""
    normalizer, own = crystal.group.normalizer, encodings_of(crystal)
    if change == "representatives":
        return [other_representatives(crystal, rng) for _ in range(3)] if crystal.free_coords.any() else []
    if change == "floating origin":
        if not normalizer.directions.shape[1]:
            return []
        shift = normalizer.directions @ rng.uniform(size=normalizer.directions.shape[1])
        moved = shift_along(crystal.space_group_number, own, shift[None])
        return [_encoding(moved, crystal, np.eye(3), shift)]
    if change == "mirror image":
        maps, number = normalizer.mirror, normalizer.mirror_partner
        chosen = [0] if maps is not None else []
    elif change == "axes":  # in oblique systems the noise itself depends on the choice of cell
        maps, number = normalizer.linear, None
        chosen = rng.permutation(np.arange(1, len(maps)))[:2] if normalizer.is_finite else []
    else:
        maps, number = normalizer.shifts, None
        chosen = rng.permutation(np.arange(1, len(maps)))[:2]
    return [
        _encoding(apply_maps(own, maps.take(np.array([i]))), crystal, maps.linear[i], maps.shifts[i], number)
        for i in chosen
    ]


CHANGES = ["representatives", "origin", "floating origin", "axes", "mirror image"]


def same_atoms(one: CrystalBatch, two: CrystalBatch, encoding: Encoding) -> torch.Tensor:
    """Row in the second batch of every atom of the first."""
    first, second = one.atoms(), two.atoms()
    moved = first.frac_coords @ torch.tensor(encoding.linear.T).double() + torch.tensor(encoding.shift)
    difference = moved[:, None] - second.frac_coords[None]
    difference = difference @ two.tables["to_primitive"][two.space_group_number[0] - 1].T
    apart = (difference - difference.round()).abs().amax(dim=2)
    apart[first.orbit[:, None] != second.orbit[None]] = torch.inf
    nearest = apart.argmin(dim=1)
    assert float(apart.min(dim=1).values.max()) < 1e-9
    assert len(set(nearest.tolist())) == len(second.orbit)
    return nearest


@dataclass(frozen=True, eq=False)
class Guess:
    """What the network guesses: the force on every atom, the cell, and the rest."""

    noisy: CrystalBatch
    forces: torch.Tensor
    cell: torch.Tensor
    out: Denoised


def guess(name: str, crystal: Crystal) -> Guess:
    given = noisy([crystal])
    batch, atoms = given.crystals, given.crystals.atoms()
    with torch.no_grad():
        out = of(name)(given)
    forces = (atoms.cart_rotations @ out.displacements[atoms.orbit][:, :, None])[:, :, 0]
    cell = lattices_from_params(batch.space_group_number, out.lattice_params, batch.num_atoms)[0]
    return Guess(batch, forces, cell, out)


def change_by_encoding(one: Guess, two: Guess, encoding: Encoding) -> float:
    """How far a guess from another encoding is from the first, turned into its frame."""
    linear = torch.tensor(encoding.linear).double()
    turn = (torch.linalg.inv(one.noisy.lattices()[0]) @ linear.T @ two.noisy.lattices()[0]).T
    torch.testing.assert_close(turn @ turn.T, torch.eye(3, dtype=turn.dtype))
    back = torch.linalg.inv(linear)
    return worst(
        deviation(
            two.forces[same_atoms(one.noisy, two.noisy, encoding)], one.forces @ turn.T, one.out.pooled
        ),
        deviation(two.cell @ two.cell.T, back.T @ one.cell @ one.cell.T @ back),
        deviation(two.out.element_logits, one.out.element_logits),
        deviation(two.out.pooled, one.out.pooled),
    )


def changes_by_encoding(name: str, crystal: Crystal, change: str) -> list[float]:
    """``change_by_encoding`` of every encoding of one kind."""
    encodings = encodings_by(change, crystal, np.random.default_rng(crystal.space_group_number))
    if not encodings:
        return []
    own = guess(name, crystal)
    return [change_by_encoding(own, guess(name, x.crystal), x) for x in encodings]


@pytest.mark.parametrize("number", GROUPS)
@pytest.mark.parametrize("name", CONFIGS)
def test_the_guess_is_the_same_crystal_in_every_encoding(name: str, number: int) -> None:
    crystal = random_crystal(number)
    for change in CHANGES:
        assert max(changes_by_encoding(name, crystal, change), default=0) < 1e-10, change


@pytest.mark.parametrize(
    ("broken", "change", "groups"),
    [
        (images_carry_one_orientation, "representatives", [9, 62, 88, 152, 173, 198]),
        (letters_are_seen, "origin", [2, 14, 62, 88, 166, 227]),
        (structure_factors_without_conjugate, "floating origin", [1, 9, 36, 99, 160, 173]),
        (letters_are_seen, "axes", [70, 82]),
        (handed_products, "mirror image", [1, 5, 19, 92, 152, 173, 198]),
    ],
)
def test_broken_networks_see_the_encoding(
    broken, change: str, groups: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch)
    for number in groups:
        assert max(changes_by_encoding("branched", random_crystal(number), change)) > 1e-3, number


@pytest.mark.parametrize("change", CHANGES)
def test_other_encodings_are_others(change: str) -> None:
    """What is compared differs: free coordinates, positions or the cell."""
    groups = []
    for number in GROUPS:
        crystal = random_crystal(number)
        for encoding in encodings_by(change, crystal, np.random.default_rng(number)):
            other = encoding.crystal
            moved = np.abs(other.free_coords - crystal.free_coords).max() > 1e-3
            moved |= (other.wyckoff_indices != crystal.wyckoff_indices).any()
            moved |= np.abs(other.lattice_params - crystal.lattice_params).max() > 1e-3
            if moved:
                groups.append(number)
    assert len(set(groups)) >= 5, groups
    if change in ("representatives", "origin"):
        assert {2, 14} <= set(groups)


# ---- origin and supercell of the full cell ---------------------------------------------------------------------


def moved_origin(lattice: np.ndarray, frac: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """The cell with every atom moved by the same vector, and which atom of the first each atom is."""
    return lattice, frac + rng.uniform(0.1, 0.9, 3), np.arange(len(frac))


def supercell(lattice: np.ndarray, frac: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """A random supercell of two to four cells in oblique axes, and which atom of the cell each atom is."""
    size = rng.permutation([1, 1, int(rng.integers(2, 5))])
    matrix = np.diag(size) + np.tril(rng.integers(0, 2, (3, 3)), -1)
    matrix = matrix @ (np.eye(3, dtype=int) + np.triu(rng.integers(-1, 2, (3, 3)), 1))
    points = np.array(list(product(range(-8, 9), repeat=3))) @ np.linalg.inv(matrix)
    points = points[((points > -1e-9) & (points < 1 - 1e-9)).all(axis=1)]
    assert len(points) == np.prod(size) > 1
    moved = (points[:, None] + frac @ np.linalg.inv(matrix)).reshape(-1, 3)
    return matrix @ lattice, moved, np.tile(np.arange(len(frac)), len(points))


def change_in_p1(change, number: int) -> float:
    """How far forces, stress and scalars are from those of the same atoms of the primitive cell."""
    model, crystal = of("branched"), random_crystal(number)
    cell, given = crystal.unit_cell("primitive"), noisy([crystal])
    with torch.no_grad():
        inputs = model.embed(given)
        cells = [
            (cell.lattice, cell.frac_coords, np.arange(cell.num_atoms)),
            change(cell.lattice, cell.frac_coords, np.random.default_rng(number)),
        ]
        found = []
        for lattice, frac, atom in cells:
            fit = space_group(1).lattice_subspace.fit(lattice, num_atoms=len(frac))
            where, turn = np.zeros(len(frac), dtype=np.int64), torch.tensor(fit.rotation)
            whole = Crystal(1, fit.params, where, cell.atomic_numbers[atom], frac)
            scalars = inputs.scalars[torch.tensor(crystal.atom_to_orbit[atom])]
            out = model.propagate(CrystalBatch.from_crystals([whole]), OrbitInputs(scalars, inputs.condition))
            found.append((out.forces @ turn, turn.T @ out.stress @ turn, out.scalars))
    row = torch.tensor(cells[1][2])
    return worst(
        deviation(found[1][0], found[0][0][row], found[0][1]),
        deviation(found[1][1], found[0][1]),
        deviation(found[1][2], found[0][2][row]),
    )


@pytest.mark.parametrize("number", FAMILIES)
@pytest.mark.parametrize("change", [moved_origin, supercell])
def test_origin_and_supercell_of_the_full_cell_do_not_matter(change, number: int) -> None:
    assert change_in_p1(change, number) < 1e-8


@pytest.mark.parametrize("number", FAMILIES)
@pytest.mark.parametrize(
    ("change", "broken"),
    [
        (moved_origin, structure_factors_without_conjugate),
        (supercell, sums_over_atoms),
        (supercell, one_image_per_pair),
    ],
)
def test_broken_networks_see_origin_and_supercell(
    change, broken, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch)
    assert change_in_p1(change, number) > 1e-3
