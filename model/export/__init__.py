"""Checkpoint to model bundle: the graphs of the contract, their ONNX files, the parity check, the manifest."""

from model.export.bundle import ExportReport, export_bundle

__all__ = ["ExportReport", "export_bundle"]
