"""Volume per atom from composition alone, with its uncertainty: small networks fitted on real crystals.

For elements i with atomic shares x_i and vectors e_i, context c = sum_i x_i e_i, one network returns

    log V = log(sum_i x_i v_i) + m,        (m, s) = W_o silu(W_m [p, q, c] + b)
    p = sum_i x_i silu(P e_i + P' c),      q = sum_ij x_i x_j silu(L e_i + R e_j + C c)

so a mean of element volumes v_i is corrected by what each element meets in this compound (charge transfer,
oxidation state, packing). Mean over networks; spread from s and from their disagreement, scaled on held-out
formulas so that one standard deviation holds 68.3 %. Fitted by ``scripts/fit_volume.py``; errors in
``docs/physics.md``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np

from nucleate.physics.composition import composition_counts
from nucleate.physics.elements import (
    NUM_ELEMENTS,
    element_features,
    element_symbol,
    element_table,
    element_values,
)
from nucleate.shapes import Bool, Float, Int


@dataclass(frozen=True)
class VolumeEstimate:
    """Volume per atom expected for a composition.

    Attributes:
        mean: Å³ per atom (the median of the distribution, exp of the mean log volume).
        log_std: standard deviation of log(volume per atom).
        extrapolated: symbols of elements too rare in the fitted data, estimated from a surrogate and
            covalent radii.
    """

    mean: float
    log_std: float
    extrapolated: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class VolumeEstimates:
    """Volumes per atom of many compositions; arrays as the fields of :class:`VolumeEstimate`."""

    mean: Float[np.ndarray, "compositions"]
    log_std: Float[np.ndarray, "compositions"]
    extrapolated: tuple[tuple[str, ...], ...]


def composition_matrix(
    compositions: Iterable[object],
) -> tuple[Int[np.ndarray, "compositions elements"], Float[np.ndarray, "compositions elements"]]:
    """(atomic numbers, atomic shares) of compositions, padded with 0 to the largest number of elements."""
    counts = [composition_counts(composition) for composition in compositions]
    width = max((len(c) for c in counts), default=1)
    z = np.zeros((len(counts), width), dtype=np.int64)
    share = np.zeros((len(counts), width))
    for row, count in enumerate(counts):
        z[row, : len(count)] = list(count)
        share[row, : len(count)] = np.array(list(count.values())) / sum(count.values())
    return z, share


def radius_volume(
    z: Int[np.ndarray, "compositions elements"],
    share: Float[np.ndarray, "compositions elements"],
    amplitude: float,
    power: float,
) -> Float[np.ndarray, "compositions"]:
    """Volume per atom in Å³ from covalent radii alone, ``amplitude * sum_i x_i r_i^power``."""
    radii = np.concatenate([[0.0], element_values("covalent_radius", np.arange(1, NUM_ELEMENTS + 1))])
    return amplitude * (share * radii[z] ** power).sum(axis=1)


def surrogate_element(z: int, seen: Bool[np.ndarray, "elements_and_padding"]) -> int:
    """The seen element that stands in for ``z``: nearest of its group or f series, else the most alike.

    Alike means the smallest Euclidean distance between the standardised vectors of
    :func:`nucleate.physics.elements.element_features`.
    """
    blocks = element_table()["block"]
    candidates = [int(k) for k in np.flatnonzero(seen) if 1 <= k <= NUM_ELEMENTS]
    if blocks[z - 1] == "f" or z == 103:
        lanthanide = z < 72
        relatives = [k for k in candidates if blocks[k - 1] == "f" and (k < 72) == lanthanide]
    else:
        group = element_values("group", z)
        relatives = [k for k in candidates if blocks[k - 1] != "f" and element_values("group", k) == group]
    # Hydrogen heads the alkali column but is none of them, in either direction.
    relatives = [k for k in relatives if (k == 1) == (z == 1)]
    if relatives:
        return min(relatives, key=lambda k: (abs(k - z), k))
    distance = np.linalg.norm(element_features(np.array(candidates)) - element_features(z), axis=1)
    return candidates[int(np.argmin(distance))]


def _silu(x: np.ndarray) -> np.ndarray:
    # silu(x) = x / (1 + exp(-x)), written with tanh because exp overflows.
    return 0.5 * x * (1.0 + np.tanh(0.5 * x))


@dataclass(frozen=True, eq=False)
class VolumeNetwork:
    """The fitted weights, float64 copies of the shipped half precision.

    Attributes:
        members: one mapping of weights per network.
        seen: whether an element (index Z, 0 is padding) was frequent enough to be fitted.
        radius_law: amplitude and power of :func:`radius_volume`.
        calibration: factor on the spread; spread added per share of an extrapolated element.
    """

    members: tuple[Mapping[str, np.ndarray], ...]
    seen: np.ndarray
    radius_law: tuple[float, float]
    calibration: tuple[float, float]

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> VolumeNetwork:
        """The network from the arrays of ``volume.npz``."""
        members = tuple(
            {
                name.rsplit("_", 1)[0]: np.asarray(arrays[name], dtype=np.float64)
                for name in arrays
                if name.rsplit("_", 1)[-1] == str(k)
            }
            for k in range(int(arrays["members"]))
        )
        law, calibration = arrays["radius_law"], arrays["calibration"]
        return cls(
            members,
            np.asarray(arrays["seen"], dtype=bool),
            (float(law[0]), float(law[1])),
            (float(calibration[0]), float(calibration[1])),
        )

    def predict(
        self, z: Int[np.ndarray, "compositions elements"], share: Float[np.ndarray, "compositions elements"]
    ) -> tuple[Float[np.ndarray, "compositions"], Float[np.ndarray, "compositions"]]:
        """(mean, standard deviation) of log volume per atom, every element taken at its own fitted vector."""
        means, scales = [], []
        for weights in self.members:
            e = weights["embedding"][z]
            context = (share[..., None] * e).sum(axis=1)
            single = _silu(
                e @ weights["single"]
                + weights["single_bias"]
                + (context @ weights["single_context"])[:, None]
            )
            left = (
                e @ weights["pair_left"]
                + weights["pair_left_bias"]
                + (context @ weights["pair_context"])[:, None]
            )
            pair = _silu(left[:, :, None] + (e @ weights["pair_right"])[:, None])
            pooled = np.concatenate(
                [
                    (share[..., None] * single).sum(axis=1),
                    np.einsum("bi,bj,bijh->bh", share, share, pair),
                    context,
                ],
                axis=1,
            )
            out = _silu(pooled @ weights["mix"] + weights["mix_bias"]) @ weights["out"] + weights["out_bias"]
            means.append(np.log((share * np.exp(weights["log_volume"][z])).sum(axis=1)) + out[:, 0])
            scales.append(np.exp(out[:, 1] - 3.0))
        # Laplace scale b has variance 2 b^2; the networks' disagreement adds to it.
        variance = 2.0 * np.mean(np.square(scales), axis=0) + np.var(means, axis=0)
        return np.mean(means, axis=0), self.calibration[0] * np.sqrt(variance)

    def estimate(
        self, z: Int[np.ndarray, "compositions elements"], share: Float[np.ndarray, "compositions elements"]
    ) -> VolumeEstimates:
        """Estimates, elements not fitted being replaced by surrogates and rescaled by covalent radii."""
        unseen = ~self.seen[z] & (share > 0)
        proxy = z.copy()
        for number in np.unique(z[unseen]):
            proxy[unseen & (z == number)] = surrogate_element(int(number), self.seen)
        mean, std = self.predict(proxy, share)
        mean = mean + np.log(
            radius_volume(z, share, *self.radius_law) / radius_volume(proxy, share, *self.radius_law)
        )
        std = np.hypot(std, self.calibration[1] * (share * unseen).sum(axis=1))
        names = tuple(tuple(element_symbol(int(k)) for k in row[flag]) for row, flag in zip(z, unseen))
        return VolumeEstimates(np.exp(mean), std, names)


@functools.cache
def volume_network() -> VolumeNetwork:
    """The shipped network, loaded once."""
    path = resources.files("nucleate.physics").joinpath("tables", "volume.npz")
    with path.open("rb") as file, np.load(file) as arrays:
        return VolumeNetwork.from_arrays(dict(arrays))


def volumes_per_atom(compositions: Sequence[object], *, chunk: int = 4096) -> VolumeEstimates:
    """Volumes per atom of many compositions at once, in the order given.

    Args:
        compositions: each as :func:`nucleate.physics.composition.composition_counts`.
        chunk: compositions per matrix product; memory is about 8 kB times the square of the number of
            elements each.
    """
    parts = [
        volume_network().estimate(*composition_matrix(compositions[start : start + chunk]))
        for start in range(0, len(compositions), chunk)
    ]
    return VolumeEstimates(
        np.concatenate([part.mean for part in parts]) if parts else np.zeros(0),
        np.concatenate([part.log_std for part in parts]) if parts else np.zeros(0),
        tuple(names for part in parts for names in part.extrapolated),
    )


def volume_per_atom(composition: object) -> VolumeEstimate:
    """Volume per atom in Å³ expected for a composition, with the standard deviation of its logarithm.

    Volumes are those of PBE relaxation at zero pressure and temperature.

    Args:
        composition: ``{"Na": 1, "Cl": 1}``, a pymatgen ``Composition``, or atomic numbers of all atoms.
    """
    many = volumes_per_atom([composition])
    return VolumeEstimate(float(many.mean[0]), float(many.log_std[0]), many.extrapolated[0])
