"""The command line: one file per command; each parses, calls the package and prints."""
