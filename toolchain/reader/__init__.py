"""From an ONNX model to a `Program`: `read_program`.

The reader takes the integer models that our compiler writes and those that others write with the integer
operators of `ai.onnx`. It lifts what it recognises to the layers of `toolchain.program`, keeps the generic
operators that NumPy runs as `Operator` layers, and refuses the rest by node, operator and reason. Q/DQ models are
brought to integer operators first (`passes.lower_qdq`); of onnxruntime's own operators it reads those in `contrib`.
"""

from .program_reader import SUPPORTED_OPERATORS, read_program

__all__ = ["SUPPORTED_OPERATORS", "read_program"]
