"""Inference with trained networks on a prepared SliceStack."""
