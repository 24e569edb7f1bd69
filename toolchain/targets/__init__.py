"""Targets: an artifact in the forms that other things run: C99, Q/DQ, QONNX, packed weights, a crossbar's image."""

from .base import (
    Built,
    Material,
    Options,
    Target,
    check_new_folder,
    find_target,
    target_names,
    write_folder,
)

__all__ = [
    "Built",
    "Material",
    "Options",
    "Target",
    "check_new_folder",
    "find_target",
    "target_names",
    "write_folder",
]
