"""Coverage against a direct computation as in the published code."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from nucleate.errors import InvalidStructureError
from nucleate.evaluation.coverage import coverage, nearest_distances


def _published(s, c, rs, rc, ds, dc, n):
    """COV-R and COV-P as CDVAE's evaluation computes them: all distances at once, minima apart."""
    near_s, near_c = cdist(s, rs), cdist(c, rc)
    recall = ((near_s.min(axis=0) <= ds) & (near_c.min(axis=0) <= dc)).mean()
    precision = ((near_s.min(axis=1) <= ds) & (near_c.min(axis=1) <= dc)).sum() / n
    return recall, precision


def test_coverage_is_that_of_the_published_code(rng):
    s, c = rng.normal(size=(700, 5)), rng.normal(size=(700, 8))
    rs, rc = rng.normal(size=(300, 5)), rng.normal(size=(300, 8))
    s[::50] = np.nan
    c[7] = np.nan
    found = coverage(
        s, c, reference_structure=rs, reference_composition=rc, structure_cutoff=1.0, composition_cutoff=2.2
    )
    good = ~(np.isnan(s).any(axis=1) | np.isnan(c).any(axis=1))
    recall, precision = _published(s[good], c[good], rs, rc, 1.0, 2.2, 700)
    assert 0.1 < recall < 0.9
    assert found.recall == pytest.approx(recall)
    assert found.precision == pytest.approx(precision)
    assert np.isnan(found.precision_structure[0])
    assert not found.precise[0]


def test_a_set_covers_itself_and_nothing_covers_what_is_far(rng):
    s, c = rng.normal(size=(20, 3)), rng.normal(size=(20, 4))
    same = coverage(s, c, reference_structure=s, reference_composition=c)
    assert (same.recall, same.precision) == (1.0, 1.0)
    far = coverage(s + 100, c, reference_structure=s, reference_composition=c)
    assert (far.recall, far.precision) == (0.0, 0.0)
    empty = coverage(s[:0], c[:0], reference_structure=s, reference_composition=c)
    assert (empty.recall, empty.precision) == (0.0, 0.0)


def test_a_reference_without_fingerprints_is_refused(rng):
    s, c = rng.normal(size=(3, 3)), rng.normal(size=(3, 4))
    with pytest.raises(InvalidStructureError, match="none of its 3"):
        coverage(s, c, reference_structure=s * np.nan, reference_composition=c)


def test_blocks_do_not_change_distances(rng):
    a, b = rng.normal(size=(1300, 3)), rng.normal(size=(40, 3))
    to_a, to_b = nearest_distances(a, b)
    assert np.allclose(to_a, cdist(a, b).min(axis=0))
    assert np.allclose(to_b, cdist(a, b).min(axis=1))
