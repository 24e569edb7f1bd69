"""How a program runs fast: layers fused into steps, tensors in one block of memory, batches cut to the cache."""

from .memory import MemoryReport
from .plan import PIECE_SAMPLES, Plan

__all__ = ["PIECE_SAMPLES", "MemoryReport", "Plan"]
