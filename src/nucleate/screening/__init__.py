"""From many candidates to the few worth a DFT run: one row per candidate and a reason for every one that leaves."""
