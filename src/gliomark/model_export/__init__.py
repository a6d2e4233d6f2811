"""Export the networks of a weights file for other programs: TorchScript, ONNX, or a MONAI bundle.

``exported_networks`` traces the networks as prediction runs them, ``volume_network`` joins the segmentation network
with the steps around it, and ``formats`` writes the files and compares their output with ours.
"""

from gliomark.model_export.formats import EXPORT_FORMATS, ExportName, export_model

__all__ = ["EXPORT_FORMATS", "ExportName", "export_model"]
