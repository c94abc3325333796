"""Evaluation of checkpoints, bundles and stored predictions by one protocol."""
