"""Prove that no accumulator leaves int32, and say which stay exact in float32."""

from __future__ import annotations

import json

import onnx_ir as ir

from ...errors import RangeError
from ..analysis.ranges import FLOAT32_EXACT, INT32_LIMIT, accumulator_ranges
from ..graph import note
from ..reader import read_program

__all__ = ["RANGES_KEY", "ProveRangesPass"]

RANGES_KEY = "ohmfold.ranges"
"""Metadata key: JSON, the proved bound of each layer's accumulator."""


class ProveRangesPass(ir.passes.InPlacePass):
    """Bound every accumulator for every possible input, channel by channel, with and without the bias.

    1. Bounds come from the actual weights (see `analysis.ranges`), and are written to the metadata.
    2. Layers whose bound reaches 2**24 are named in the report: their float32 cast rounds, the twin computes
       them in float64.

    Refused: a bound past 2**31 - 1.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Prove and record."""
        ranges = accumulator_ranges(read_program(model))
        for found in ranges:
            if found.bound > INT32_LIMIT:
                raise RangeError(
                    f"layer '{found.layer}': the accumulator of channel {found.worst_channel} can reach "
                    f"{found.bound}, beyond int32 (2^31 - 1); use fewer weight bits or a smaller layer"
                )
            if found.bound >= FLOAT32_EXACT:
                note(model, f"layer '{found.layer}': its accumulator can reach {found.bound}, past 2^24")
        model.metadata_props[RANGES_KEY] = json.dumps({found.layer: found.bound for found in ranges})
        return ir.passes.PassResult(model, modified=False)
