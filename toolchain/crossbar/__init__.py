"""Crossbars: weights laid on tiles, cells as they are made, and the sums that converters read."""

from .array import ProgrammedLayer
from .crossbar import Crossbar
from .mapping import Mapping

__all__ = ["Crossbar", "Mapping", "ProgrammedLayer"]
