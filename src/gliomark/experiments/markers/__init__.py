"""Experiments of chapter 4: prediction of molecular markers."""
