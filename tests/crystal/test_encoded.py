"""The way back: sites, vector fields and tensors of the user's own cell, there and back to 1e-6."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from synthetic import disguised, neighbours, noisy, random_rotation, same_atoms

from nucleate.crystal import Crystal, EncodedStructure, UnitCell, encode
from nucleate.data.bundled import bundled_crystal

REAL = [
    "caal2si2o8-anorthite", "zro2-baddeleyite", "mg2sio4-forsterite", "p-black-phosphorus", "bpo4-boron-phosphate",
    "tio2-rutile", "sio2-alpha-quartz-p3-121", "linbo3-lithium-niobate", "al2o3-corundum", "zns-wurtzite",
    "fesi-fersilicite", "zns-sphalerite", "mgal2o4-spinel",
]  # fmt: skip


def encoded_copy(
    crystal_id: str, rng: np.random.Generator, *, left_handed: bool
) -> tuple[UnitCell, EncodedStructure]:
    ideal = encode(bundled_crystal(crystal_id).unit_cell).crystal.unit_cell("primitive")
    cell = disguised(ideal, rng, left_handed=left_handed)
    return cell, encode(cell)


def forces(cell: UnitCell, centres: np.ndarray, elements: np.ndarray) -> np.ndarray:
    """A polar vector per atom that follows the symmetry of the crystal: a sum over neighbours."""
    rows = []
    for z, (vectors, others) in zip(elements, neighbours(cell, centres, radius=4.5)):
        r = np.linalg.norm(vectors, axis=1)
        rows.append(((4.5 - r) ** 2 * (others + 0.1 * z) / r) @ vectors)
    return np.array(rows)


def stress(cell: UnitCell) -> np.ndarray:
    """A symmetric tensor per volume: a sum over pairs."""
    total = np.zeros((3, 3))
    for vectors, others in neighbours(cell, cell.frac_coords, radius=4.5):
        weight = (4.5 - np.linalg.norm(vectors, axis=1)) ** 2 * others
        total += np.einsum("n,ni,nj->ij", weight, vectors, vectors)
    return total / cell.volume


@pytest.mark.parametrize("crystal_id", REAL)
@pytest.mark.parametrize("left_handed", [False, True])
def test_sites_forces_and_stress_come_back(
    crystal_id: str, left_handed: bool, rng: np.random.Generator
) -> None:
    """What is computed in the user's cell equals what is computed in the standard cell and carried over."""
    cell, encoded = encoded_copy(crystal_id, rng, left_handed=left_handed)
    assert same_atoms(encoded.unit_cell(), cell, tolerance=1e-6)
    assert encoded.num_atoms == cell.num_atoms

    crystal = encoded.crystal
    standard = crystal.unit_cell("conventional")
    there = forces(standard, crystal.representatives, crystal.atomic_numbers)
    here = forces(cell, cell.frac_coords, cell.atomic_numbers)
    scale = np.abs(here).max() + 1
    assert np.abs(encoded.vectors_from_orbits(there) - here).max() < 1e-6 * scale
    assert np.abs(encoded.vectors_to_orbits(here) - there).max() < 1e-6 * scale
    tensor = stress(cell)
    assert np.abs(encoded.tensor_to_standard(tensor) - stress(standard)).max() < 1e-6 * np.abs(tensor).max()


@pytest.mark.parametrize("crystal_id", REAL[:6])
def test_arbitrary_fields_and_tensors_come_back(crystal_id: str, rng: np.random.Generator) -> None:
    _, encoded = encoded_copy(crystal_id, rng, left_handed=True)
    vectors = rng.normal(size=(encoded.num_atoms, 3))
    assert np.allclose(encoded.vectors_from_standard(encoded.vectors_to_standard(vectors)), vectors)
    for rank in (1, 2, 3, 4):
        tensor = rng.normal(size=(3,) * rank)
        rotated = encoded.tensor_to_standard(tensor)
        assert np.allclose(encoded.tensor_from_standard(rotated), tensor)
        assert np.isclose(np.linalg.norm(rotated), np.linalg.norm(tensor))
    vector = rng.normal(size=3)
    assert np.allclose(encoded.tensor_to_standard(vector), encoded.vectors_to_standard(vector[None])[0])
    outer = encoded.tensor_to_standard(np.outer(vector, vector))
    assert np.allclose(outer, np.outer(*[encoded.tensor_to_standard(vector)] * 2))


@pytest.mark.parametrize("crystal_id", REAL)
def test_projection_on_orbits_keeps_the_symmetric_part(crystal_id: str, rng: np.random.Generator) -> None:
    """Atoms moved along the projected field keep the group; moved along the field itself they lose it."""
    ideal = encode(bundled_crystal(crystal_id).unit_cell).crystal.unit_cell("primitive")
    encoded = encode(ideal)
    field = rng.normal(size=(encoded.num_atoms, 3))
    symmetric = encoded.vectors_from_orbits(encoded.vectors_to_orbits(field))
    again = encoded.vectors_from_orbits(encoded.vectors_to_orbits(symmetric))
    assert np.allclose(symmetric, again, atol=1e-9)
    assert np.linalg.norm(symmetric) < np.linalg.norm(field)  # an orthogonal projection
    assert abs((symmetric * (field - symmetric)).sum()) < 1e-9
    number = encoded.crystal.space_group_number
    back = np.linalg.inv(ideal.lattice)
    for moved, kept in ((symmetric, True), (field, False)):
        cell = replace(ideal, frac_coords=ideal.frac_coords + 0.02 * moved @ back)
        found = encode(cell, symprec=1e-4).crystal.space_group_number
        assert (found == number) == kept


@pytest.mark.parametrize("crystal_id", ["tio2-rutile", "zns-wurtzite", "mg2sio4-forsterite"])
def test_a_wrong_operation_breaks_the_way_back(crystal_id: str, rng: np.random.Generator) -> None:
    """Negative control of all of the above."""
    cell, encoded = encoded_copy(crystal_id, rng, left_handed=False)
    wrong = encoded.atom_to_operation.copy()
    first = encoded.atom_to_orbit == encoded.atom_to_orbit[0]
    wrong[first] = np.roll(wrong[first], 1)
    broken = replace(encoded, atom_to_operation=wrong)
    assert not same_atoms(broken.unit_cell(), cell, tolerance=1e-2)
    turned = replace(encoded, rotation=random_rotation(rng))
    assert not same_atoms(turned.unit_cell(), cell, tolerance=1e-2)
    shifted = replace(encoded, origin_shift=encoded.origin_shift + 0.01)
    assert not same_atoms(shifted.unit_cell(), cell, tolerance=1e-2)


@pytest.mark.parametrize("crystal_id", REAL)
def test_each_atom_knows_its_orbit_and_operation(crystal_id: str, rng: np.random.Generator) -> None:
    cell, encoded = encoded_copy(crystal_id, rng, left_handed=True)
    crystal, group = encoded.crystal, encoded.crystal.group
    assert (crystal.atomic_numbers[encoded.atom_to_orbit] == cell.atomic_numbers).all()
    assert encoded.atom_to_operation.min() >= 0
    assert encoded.atom_to_operation.max() < group.num_operations
    for orbit, position in enumerate(crystal.positions):
        assert set(encoded.atom_to_operation[encoded.atom_to_orbit == orbit]) == set(
            position.operation_indices
        )
    shifts = encoded.lattice_shifts @ np.linalg.inv(group.primitive_basis).T
    assert np.allclose(shifts, np.rint(shifts), atol=1e-9)
    size = cell.num_atoms / crystal.num_atoms
    assert np.isclose(abs(np.linalg.det(encoded.transformation)), 1 / size)
    assert (np.linalg.det(encoded.transformation) < 0) == (np.linalg.det(cell.lattice) < 0)
    lattice = encoded.transformation.T @ cell.lattice
    assert np.allclose(lattice, crystal.lattice @ encoded.rotation, atol=1e-6)


def test_site_properties_are_carried_along(rng: np.random.Generator) -> None:
    cell = bundled_crystal("tio2-rutile").unit_cell
    moments = rng.normal(size=(cell.num_atoms, 3))
    labels = np.array([f"X{i}" for i in range(cell.num_atoms)])
    encoded = encode(replace(cell, site_properties={"magnetic_moment": moments, "label": labels}))
    back = encoded.unit_cell()
    assert back.site_properties["magnetic_moment"] is moments
    assert (back.site_properties["label"] == labels).all()


def test_noise_does_not_disturb_the_assignment(rng: np.random.Generator) -> None:
    cell = bundled_crystal("mg2sio4-forsterite").unit_cell
    exact, rough = encode(cell), encode(noisy(cell, rng, size=3e-3))
    assert (exact.atom_to_orbit == rough.atom_to_orbit).all()
    assert same_atoms(rough.unit_cell(), cell, tolerance=2e-2)


def test_the_original_cell_in_pymatgen_ase_and_poscar() -> None:
    """A left-handed supercell with moments comes back in its own cell, frame and order in every library."""
    structure = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.2), ["Ni", "O"], [[0, 0, 0], [0.5] * 3])
    structure.make_supercell([[0, 1, 0], [1, 0, 0], [0, 0, 2]])  # the axes exchanged: left-handed
    structure.add_site_property("magmom", [float(i) for i in range(len(structure))])
    assert np.linalg.det(structure.lattice.matrix) < 0
    encoded = Crystal.from_structure(structure)
    back, atoms = encoded.to_structure(), encoded.to_atoms()
    assert np.allclose(back.lattice.matrix, structure.lattice.matrix, atol=1e-9)
    assert back.species == structure.species
    assert back.site_properties["magmom"] == structure.site_properties["magmom"]
    offsets = back.frac_coords - structure.frac_coords
    assert np.allclose(offsets, np.rint(offsets), atol=1e-9)
    assert np.allclose(atoms.cell[:], structure.lattice.matrix, atol=1e-9)
    assert atoms.get_initial_magnetic_moments().tolist() == structure.site_properties["magmom"]
    again = Crystal.from_structure(encoded.to_poscar())
    assert again.crystal.bucket_key == encoded.crystal.bucket_key
    assert again.num_atoms == len(structure)
