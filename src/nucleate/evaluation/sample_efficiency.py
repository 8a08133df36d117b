"""Sample efficiency: what a user gets for k samples, or for an hour of computing."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from nucleate.errors import ConfigError
from nucleate.evaluation.diversity import rarefaction
from nucleate.shapes import Bool, Float


def success_within(
    hits: Sequence[int] | np.ndarray, tries: Sequence[int] | np.ndarray, k: int
) -> Float[np.ndarray, "tasks"]:
    """Chance that at least one of k tries at each task succeeds, from n tries of which c did.

        1 - C(n - c, k) / C(n, k),

    without bias for n >= k (Chen et al. 2021, "pass@k"), where ``1 - (1 - c/n)^k`` is too low.

    Raises:
        ConfigError: a task with fewer than k tries, or with more hits than tries.
    """
    from scipy.special import gammaln  # noqa: PLC0415  loads late

    c, n = np.asarray(hits, dtype=np.float64), np.asarray(tries, dtype=np.float64)
    if len(n) and (n.min() < k or k < 1):
        raise ConfigError(
            f"success within {k} tries needs at least {max(k, 1)} tries per task, got {n.min():g}"
        )
    if (c > n).any() or (c < 0).any():
        raise ConfigError("a task has more hits than tries")
    rest = n - c
    missed = np.exp(
        gammaln(rest + 1) - gammaln(np.maximum(rest - k, 0) + 1) - gammaln(n + 1) + gammaln(n - k + 1)
    )
    return 1 - np.where(rest >= k, missed, 0.0)


def best_of(values: Float[np.ndarray, "n"], k: int) -> float:
    """Expected smallest of k values drawn without repetition from n, without bias.

        E = sum_i x_(i) C(n - i, k - 1) / C(n, k),   x_(1) <= x_(2) <= ...

    Raises:
        ConfigError: k is not between 1 and n.
    """
    from scipy.special import gammaln  # noqa: PLC0415  loads late

    n = len(values)
    if not 1 <= k <= n:
        raise ConfigError(f"the best of k values needs k from 1 to {n}, got {k}")
    i = np.arange(1, n - k + 2)
    log_ways = gammaln(n - i + 1) - gammaln(k) - gammaln(n - i - k + 2)
    log_all = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return float(np.sort(values)[: len(i)] @ np.exp(log_ways - log_all))


def distinct_hits(
    keys: Sequence[Hashable], hits: Bool[np.ndarray, "n"], sizes: Sequence[int]
) -> Float[np.ndarray, "sizes"]:
    """Expected number of different hits among the first k of the samples in random order, for each k.

    A hit is whatever the caller counts: valid, novel and stable, inside a property window. Copies of one crystal
    (equal keys) count once, so the curve bends where a generator repeats itself.

    Args:
        keys: one per sample, equal for equal crystals.
        hits: which samples count.
        sizes: numbers k of samples drawn.

    Raises:
        ConfigError: a k above the number of samples.
    """
    n = len(keys)
    if len(sizes) and max(sizes) > n:
        raise ConfigError(f"the curve ends at {n} samples, {max(sizes)} were asked for")
    counts: dict[Hashable, int] = {}
    for key, hit in zip(keys, hits):
        if hit:
            counts[key] = counts.get(key, 0) + 1
    return rarefaction(list(counts.values()), sizes, total=n)


def hits_per_cost(
    keys: Sequence[Hashable], hits: Bool[np.ndarray, "n"], costs: Float[np.ndarray, "n"]
) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """(cost spent, different hits found) after each sample in the order given: quality against compute.

    Args:
        keys: one per sample, equal for equal crystals.
        hits: which samples count.
        costs: of each sample, in seconds or any other unit; at least 0.

    Raises:
        ConfigError: a cost below 0 or not finite.
    """
    if not (np.isfinite(costs) & (costs >= 0)).all():
        raise ConfigError(f"costs are finite and at least 0, got {np.min(costs):g}")
    seen: set[Hashable] = set()
    found = np.zeros(len(keys))
    for i, (key, hit) in enumerate(zip(keys, hits)):
        if hit:
            seen.add(key)
        found[i] = len(seen)
    return np.cumsum(costs), found
