"""Every error nucleate raises on purpose, under one base, each with the numbers and the way out in its message."""

from __future__ import annotations


class NucleateError(Exception):
    """Base of all errors nucleate raises on purpose; the CLI prints its message and exits with code 1."""


class InvalidStructureError(NucleateError):
    """The input is not a crystal: NaN, zero volume, overlapping atoms, no atoms, unknown element."""


class DisorderedStructureError(InvalidStructureError):
    """The input has partial occupancy or substitutional disorder; the message lists the sites."""

    @classmethod
    def at(cls, name: str, sites: str) -> DisorderedStructureError:
        """The error of the structure ``name``, disordered at ``sites``, with the way out."""
        return cls(
            f"{name} is disordered: {sites}; only ordered crystals can be encoded: give an ordered approximant "
            "(pymatgen's OrderDisorderedStructureTransformation makes one)"
        )


class StructureTooLargeError(InvalidStructureError):
    """The input has more atoms than ``max_atoms``."""


class SymmetryError(NucleateError):
    """A symmetry search failed, or the ideal crystal is further from the input than the stated tolerance."""


class WyckoffError(NucleateError):
    """Orbits that cannot exist: unknown letter, wrong number of free coordinates, a used-up or collapsed position."""


class ParseError(NucleateError):
    """A file or text could not be read as the format it claims to be."""


class SourceError(NucleateError):
    """A data source (file, archive, table, service) could not be read."""


class StoreError(NucleateError):
    """A store of encoded crystals is missing, incomplete, of another version, or does not match what was asked."""


class CheckpointError(NucleateError):
    """A file of weights is missing, damaged, of another version, or does not fit this program's tables."""


class ConfigError(NucleateError):
    """A configuration has an unknown key or a value that cannot be."""


class TrainingError(NucleateError):
    """Training cannot start or go on: no crystals, another run in the folder, losses that are not numbers."""


class ConditionError(NucleateError):
    """What is asked of a crystal is contradictory or impossible; the message says why."""


class PotentialError(NucleateError):
    """A potential is not installed, does not exist, or answers another question than was asked."""


class CacheError(NucleateError):
    """The folder of a cache cannot be used."""


class ScreeningError(NucleateError):
    """A screening cannot start or go on: another run in the folder, a full disk, workers that do not load."""


class DFTError(NucleateError):
    """A DFT program, its pseudopotentials or its settings are missing, or its run did not end as it should."""
