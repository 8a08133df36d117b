"""Array sizes are rounded up to few."""

from __future__ import annotations

from nucleate.models.round_size import round_size


def test_sizes_are_few_and_little_larger() -> None:
    sizes = [round_size(n) for n in range(1, 10_001)]
    assert all(n <= size <= n * 8 / 7 for n, size in enumerate(sizes, start=1))
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 15 + 8 * 9 + 3  # all up to 15, eight in each octave, and 8192, 9216, 10240
    assert all(round_size(size) == size for size in set(sizes))
    assert round_size(0) == 0


def test_no_size_lies_between_the_multiples_of_the_least() -> None:
    assert {round_size(n, least=256) for n in range(1, 2049)} == set(range(256, 2049, 256))
    assert round_size(5_000, least=256) == round_size(5_000) == 5_120
