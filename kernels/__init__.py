"""Exact integer kernels in Numba: they know arrays and shapes, and nothing of ONNX or of programs.

Every kernel is serial and releases the GIL, so a caller may run several on threads of its own. Compiled code
has no bounds checks; the Python functions and classes around it check element types and shapes first.
"""
