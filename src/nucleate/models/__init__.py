"""Learned functions of crystals: the equivariant graph transformer on orbits.

They know crystals, not noise.
"""
