"""Explanation of predictions: Grad-CAM maps of the networks, and the images of ``gliomark explain``."""
