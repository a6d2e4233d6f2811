"""Explanation of predictions: Grad-CAM maps of the networks."""
