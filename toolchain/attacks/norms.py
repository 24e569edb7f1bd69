"""How the libraries that attacks come from spell a norm."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ORDER", "PYAUTOATTACK"]

ORDER: Mapping[str, float] = MappingProxyType({"inf": math.inf, "2": 2})
"""cleverhans: the order of the norm."""

PYAUTOATTACK: Mapping[str, str] = MappingProxyType({"inf": "Linf", "2": "L2"})
"""pyautoattack: its name."""
