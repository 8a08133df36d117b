"""Exact integer linear algebra for the tables: Smith normal form, saturated bases, linear congruences."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np


def identity(n: int) -> list[list[int]]:
    return [[int(i == j) for j in range(n)] for i in range(n)]


def smith_normal_form(matrix) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(U, D, V): U, V unimodular, U @ matrix @ V = D diagonal, each nonzero entry positive (object dtype)."""
    D = [[int(x) for x in row] for row in matrix]
    m, n = len(D), len(D[0])
    U, V = identity(m), identity(n)

    def swap_rows(i, j):
        D[i], D[j] = D[j], D[i]
        U[i], U[j] = U[j], U[i]

    def swap_columns(i, j):
        for row in itertools.chain(D, V):
            row[i], row[j] = row[j], row[i]

    def add_row(i, j, factor):
        D[i] = [a + factor * b for a, b in zip(D[i], D[j])]
        U[i] = [a + factor * b for a, b in zip(U[i], U[j])]

    def add_column(i, j, factor):
        for row in itertools.chain(D, V):
            row[i] += factor * row[j]

    for t in range(min(m, n)):
        while True:
            entries = [(abs(D[i][j]), i, j) for i in range(t, m) for j in range(t, n) if D[i][j]]
            if not entries:
                break
            _, i, j = min(entries)
            swap_rows(t, i)
            swap_columns(t, j)
            for i in range(t + 1, m):
                add_row(i, t, -(D[i][t] // D[t][t]))
            for j in range(t + 1, n):
                add_column(j, t, -(D[t][j] // D[t][t]))
            if not any(D[i][t] for i in range(t + 1, m)) and not any(D[t][j] for j in range(t + 1, n)):
                break
        if D[t][t] < 0:
            D[t] = [-a for a in D[t]]
            U[t] = [-a for a in U[t]]
    return np.array(U, dtype=object), np.array(D, dtype=object), np.array(V, dtype=object)


def inverse(matrix) -> np.ndarray:
    """Exact inverse of a square matrix of integers or fractions."""
    n = len(matrix)
    rows = [
        [Fraction(x) for x in row] + [Fraction(int(i == j)) for j in range(n)] for i, row in enumerate(matrix)
    ]
    for t in range(n):
        pivot = next(i for i in range(t, n) if rows[i][t] != 0)
        rows[t], rows[pivot] = rows[pivot], rows[t]
        rows[t] = [x / rows[t][t] for x in rows[t]]
        for i in range(n):
            if i != t and rows[i][t] != 0:
                rows[i] = [a - rows[i][t] * b for a, b in zip(rows[i], rows[t])]
    return np.array([row[n:] for row in rows], dtype=object)


def fractions(matrix, denominator: int = 1) -> np.ndarray:
    """The array divided by ``denominator`` as exact fractions."""
    array = np.asarray(matrix, dtype=object)
    return (
        np.vectorize(lambda x: Fraction(int(x), denominator), otypes=[object])(array) if array.size else array
    )


def numerators(array, denominator: int) -> np.ndarray:
    """Integers ``array * denominator``; raises when that is not exact."""

    def one(x):
        scaled = Fraction(x) * denominator
        if scaled.denominator != 1:
            raise ValueError(f"{x} is not a multiple of 1/{denominator}")
        return int(scaled)

    array = np.asarray(array, dtype=object)
    return np.vectorize(one, otypes=[np.int64])(array) if array.size else array.astype(np.int64)


def clear_denominators(matrix) -> np.ndarray:
    """The matrix times the least common multiple of its denominators, as integers."""
    array = np.asarray(matrix, dtype=object)
    scale = int(np.lcm.reduce([Fraction(x).denominator for x in array.ravel()])) if array.size else 1
    return numerators(array, scale).astype(object)


def saturation(columns) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Splits Z^n by the rational column space L of ``columns``.

    Returns (basis, functionals, section): ``basis`` (n, d) generates the integer points of L; ``functionals``
    (n-d, n) vanish on L and map Z^n onto Z^(n-d); ``functionals @ section`` is the identity.
    """
    integer = clear_denominators(columns)
    U, D, _ = smith_normal_form(integer)
    rank = sum(1 for i in range(min(D.shape)) if D[i, i])
    back = clear_denominators(inverse(U))
    return back[:, :rank], U[rank:, :], back[:, rank:]


def solve_congruences(M, b) -> tuple[list[np.ndarray], np.ndarray] | None:
    """All s in (R/Z)^n with M s = b modulo 1: (finite solutions, basis of continuous directions), or None.

    ``M`` integer (rows, n), ``b`` fractions (rows,). Every solution is one of the finite ones plus a real
    combination of the continuous directions (columns, primitive integer vectors).
    """
    U, D, V = smith_normal_form(M)
    rhs = U.dot(np.asarray(b, dtype=object))
    n = V.shape[0]
    choices, free = [], []
    for i in range(n):
        d = D[i, i] if i < D.shape[0] else 0
        if d:
            choices.append([(rhs[i] + k) / Fraction(d) for k in range(d)])
        else:
            choices.append([Fraction(0)])
            free.append(i)
    for i in range(D.shape[0]):
        if (i >= n or not D[i, i]) and Fraction(rhs[i]).denominator != 1:
            return None
    solutions = [V.dot(np.array(y, dtype=object)) for y in itertools.product(*choices)]
    return [np.array([x % 1 for x in s], dtype=object) for s in solutions], V[:, free]
