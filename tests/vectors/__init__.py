"""Inputs and expected outputs of a small bundle, for every runtime (README.md here says how they are read)."""
