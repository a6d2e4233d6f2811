"""Experiments of chapter 3: lesion segmentation."""
