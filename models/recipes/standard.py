"""Standard training: the cross-entropy of images as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .base import Method

__all__ = ["Standard"]


@dataclass(frozen=True, kw_only=True)
class Standard(Method):
    """Cross-entropy; shifts, mirroring and label smoothing are settings of the run."""

    name: ClassVar[str] = "standard"
