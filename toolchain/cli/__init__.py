"""The command line `ohmfold`. Importing it imports no torch, onnxruntime, Numba, ONNX or matplotlib."""

from .app import main

__all__ = ["main"]
