"""Checkpoint to model bundle: the contract's graphs, their ONNX files, the parity check, the manifest."""

from model.export.bundle import ExportReport, export_bundle

__all__ = ["ExportReport", "export_bundle"]
