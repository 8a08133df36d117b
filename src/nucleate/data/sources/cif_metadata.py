"""What the CIFs of databases say beside the structure: numbers with uncertainties and the publication."""

from __future__ import annotations

from nucleate.crystal.cif_block import CifTags, parse_number
from nucleate.errors import ParseError


def first_number(tags: CifTags, *names: str) -> float | None:
    """The first of these items that holds a number, its uncertainty left away; None where none does."""
    for name in names:
        text = tags.text(name)
        if text is None:
            continue
        try:
            return parse_number(text, what=name)
        except ParseError:
            continue  # "room temperature" and the like
    return None


def citation(tags: CifTags) -> str | None:
    """The publication as one line: its DOI where there is one, else journal, volume, year and page."""
    doi = tags.text("_journal_paper_doi", "_journal_doi", "_citation_doi", "_citation_DOI")
    if doi:
        return f"https://doi.org/{doi.removeprefix('https://doi.org/').removeprefix('doi:')}"
    journal = tags.text("_journal_name_full", "_citation_journal_full", "_citation_journal_abbrev")
    if not journal:
        return None
    volume = tags.text("_journal_volume", "_citation_journal_volume")
    year = tags.text("_journal_year", "_citation_year")
    page = tags.text("_journal_page_first", "_citation_page_first")
    parts = [" ".join(journal.split()), volume, f"({year})" if year else None, page]
    return " ".join(part for part in parts if part)
