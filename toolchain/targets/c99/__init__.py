"""The C99 target: a self-contained C library that computes an artifact's bits."""

from .library import C99Library, generate
from .options import C99Options
from .sizes import SizeReport

__all__ = ["C99Library", "C99Options", "SizeReport", "generate"]
