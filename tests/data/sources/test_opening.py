"""What a user may type, and what importing costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nucleate.data.record import Source
from nucleate.data.sources import open_source
from nucleate.errors import SourceError


def test_names_units_and_terms_are_passed_on(tmp_path, cifs, read_all):
    (tmp_path / "a.cif").write_text(cifs["rutile"])
    source = open_source(tmp_path, name="mine", licence="MIT", reference="a paper", url="https://example.org")
    provenance = read_all(source).records[0].provenance
    assert (provenance.source, provenance.licence) == ("mine", "MIT")
    assert (provenance.reference, provenance.url) == ("a paper", "https://example.org")


def test_largest_number_of_atoms_reaches_the_readers_that_have_one(tmp_path, cifs, read_all):
    (tmp_path / "a.cif").write_text(cifs["rutile"])
    assert "limit is 5" in read_all(open_source(tmp_path, max_atoms=5)).reasons()[0]
    assert len(read_all(open_source(tmp_path, max_atoms=6)).records) == 1
    # A source whose structures need no expansion leaves the limit to the encoder.
    assert isinstance(open_source("oqmd:", max_atoms=5), Source)


@pytest.mark.parametrize("spec", ["no/such/file", "nothing:there", "", "*.nothing"])
def test_what_is_not_there(spec):
    with pytest.raises(SourceError, match="Sources are paths"):
        open_source(spec)


def test_an_option_of_another_source_is_refused(tmp_path):
    with pytest.raises(SourceError, match="has no option 'id_column'"):
        open_source("oqmd:", id_column="x")


def test_importing_loads_none_of_the_heavy_readers():
    heavy = ("pymatgen", "ase", "mp_api", "optimade", "gemmi", "moyopy", "scipy")
    code = f"import sys, nucleate.data.sources; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
