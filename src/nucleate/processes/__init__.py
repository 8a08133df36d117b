"""Noise and sampling: manifolds, paths and samplers. A process takes a denoiser as a callable and knows no network."""
