"""The basic iterative method (Kurakin et al. 2016, arXiv:1607.02533), from cleverhans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .pgd import ProjectedDescent

__all__ = ["BIM"]


@dataclass(frozen=True)
class BIM(ProjectedDescent):
    """Projected gradient descent that starts at the clean image."""

    name: ClassVar[str] = "bim"
    random_start: ClassVar[bool] = False
