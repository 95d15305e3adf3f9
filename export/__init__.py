"""A task as an ONNX file: its gates folded into plain weights, checked against ONNX Runtime."""

from gatehub.export.onnx import ExportReport, export_onnx, verify_onnx

__all__ = ["ExportReport", "export_onnx", "verify_onnx"]
