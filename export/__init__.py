"""PyTorch to float ONNX, and the check that nothing changed on the way."""

from .exporter import ExportCheck, check_export, export_module

__all__ = ["ExportCheck", "check_export", "export_module"]
