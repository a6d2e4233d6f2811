"""Trained networks at work on a SliceStack."""
