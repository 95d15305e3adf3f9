"""A task as an ONNX file: its gates folded into plain weights, checked against ONNX Runtime."""

from gatehub.export.onnx import export_onnx
from gatehub.export.verification import ExportReport, FileState, verify_onnx

__all__ = ["ExportReport", "FileState", "export_onnx", "verify_onnx"]
