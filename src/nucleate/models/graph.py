"""The neighbour graph: from each orbit representative to every periodic image within a radius."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nucleate.crystal.batch import Atoms, CrystalBatch, ragged_rows
from nucleate.models.round_size import round_size
from nucleate.shapes import Float, Int


@dataclass(frozen=True, eq=False)
class OrbitGraph:
    """Edges of a batch, sorted by target.

    An edge runs to orbit representative ``target`` from one periodic image of atom ``atom`` (an image of
    orbit ``source``). Features of the source are those of its representative rotated by ``rotations``.

    Attributes:
        target: orbit at whose representative the edge ends.
        source: orbit the image belongs to.
        atom: row of the image in ``Atoms``.
        vectors: Cartesian vectors in Å from the representative to the image, differentiable.
        distances: their lengths.
        cutoffs: radius of each edge's crystal in Å.
        rotations: Cartesian R of each atom of the batch (index with ``atom``).
        length_unit: (volume per atom)^(1/3) of each crystal in Å.
    """

    target: Int[Tensor, "edges"]
    source: Int[Tensor, "edges"]
    atom: Int[Tensor, "edges"]
    vectors: Float[Tensor, "edges 3"]
    distances: Float[Tensor, "edges"]
    cutoffs: Float[Tensor, "edges"]
    rotations: Float[Tensor, "atoms 3 3"]
    length_unit: Float[Tensor, "crystals"]


def orbit_graph(
    batch: CrystalBatch, atoms: Atoms, *, radius: float, fixed_radius: float | None = None
) -> OrbitGraph:
    """Every image within the radius of every representative.

    The radius is ``radius * (V / N)^(1/3)``, so that a neighbourhood holds about ``4/3 pi radius^3`` images
    whatever the density; never a count of neighbours, which would cut through shells of equivalent images.
    With ``fixed_radius`` (Å) it is the same length in every crystal.

    Time and memory: (orbits x atoms x translations) candidates per crystal, of which a few per cent are
    edges.
    """
    tables = batch.tables
    number = batch.space_group_number - 1
    lattices = batch.primitive_lattices()
    length_unit = batch.length_unit
    cutoff = radius * length_unit if fixed_radius is None else torch.full_like(length_unit, fixed_radius)
    representatives = batch.representatives()
    to_primitive = tables["to_primitive"][number]

    with torch.no_grad():
        spacing = 1 / torch.linalg.vector_norm(torch.linalg.inv(lattices), dim=1)
        reach = torch.floor(cutoff[:, None] / spacing + 0.5).to(torch.int64)
        sizes = 2 * reach + 1
        num_translations = sizes.prod(dim=1)
        # pairs (representative, atom) of the same crystal
        per_orbit = batch.num_atoms_primitive[batch.orbit_to_crystal]
        orbit, within = ragged_rows(per_orbit)
        crystal = batch.orbit_to_crystal[orbit]
        first_atom = (batch.num_atoms_primitive.cumsum(0) - batch.num_atoms_primitive)[crystal]
        atom = first_atom + within
        difference = atoms.frac_coords[atom] - representatives[orbit]
        difference = (to_primitive[crystal] @ difference[:, :, None])[:, :, 0]
        wrap = torch.round(difference)
        difference = difference - wrap
        # every translation that can bring the pair within the radius
        pair, nth = ragged_rows(num_translations[crystal])
        size, half = sizes[crystal][pair], reach[crystal][pair]
        shift = (
            torch.stack(
                [nth // (size[:, 1] * size[:, 2]), nth // size[:, 2] % size[:, 1], nth % size[:, 2]], dim=1
            )
            - half
        )
        vector = ((difference[pair] + shift)[:, None, :] @ lattices[crystal][pair])[:, 0]
        near = (vector**2).sum(dim=1) < cutoff[crystal][pair] ** 2
        # an atom is not its own neighbour: the representative is image 0 of its orbit
        first_of_orbit = batch.multiplicities.cumsum(0) - batch.multiplicities
        itself = (atom == first_of_orbit[orbit])[pair] & (shift == 0).all(dim=1)
        keep = torch.nonzero(near & ~itself)[:, 0]
        pair = pair[keep]
        orbit, atom, crystal = orbit[pair], atom[pair], crystal[pair]
        translation = shift[keep] - wrap[pair]

    frac = atoms.frac_coords[atom] - representatives[orbit]
    frac = frac + (tables["primitive"][number][crystal] @ translation[:, :, None])[:, :, 0]
    vectors = (frac[:, None, :] @ batch.lattices()[crystal])[:, 0]
    return OrbitGraph(
        target=orbit,
        source=atoms.orbit[atom],
        atom=atom,
        vectors=vectors,
        distances=torch.linalg.vector_norm(vectors, dim=1),
        cutoffs=cutoff[crystal],
        rotations=atoms.cart_rotations,
        length_unit=length_unit,
    )


def with_round_size(graph: OrbitGraph) -> OrbitGraph:
    """The graph with edges of length r_c, which an envelope makes count for nothing, up to one of few sizes.

    See ``round_size``; 4 % more edges on average.
    """
    count = len(graph.target)
    more = round_size(count) - count
    if not more:
        return graph
    direction = torch.eye(3, dtype=graph.vectors.dtype, device=graph.vectors.device)[0]
    reach = graph.cutoffs[-1:].detach()

    def again(rows: Tensor) -> Tensor:
        return torch.cat([rows, rows[-1:].expand(more)])

    return replace(
        graph,
        target=again(graph.target),
        source=again(graph.source),
        atom=again(graph.atom),
        vectors=torch.cat([graph.vectors, (reach * direction).expand(more, 3)]),
        distances=torch.cat([graph.distances, reach.expand(more)]),
        cutoffs=again(graph.cutoffs),
    )


def image_pairs(crystals: CrystalBatch, *, radius: float) -> OrbitGraph:
    """``orbit_graph`` of the crystals' own atoms: every image within the radius of every representative.

    Args:
        crystals: distances are differentiable in their coordinates and cells.
        radius: in units of each crystal's (volume per atom)^(1/3).
    """
    return orbit_graph(crystals, crystals.atoms(), radius=radius)
