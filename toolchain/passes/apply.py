"""Run one pass so that a user's mistake comes out as the error that the pass raised."""

from __future__ import annotations

import onnx_ir as ir

from ...errors import ModelError, OhmfoldError

__all__ = ["apply"]


def apply(pass_: ir.passes.PassBase, model: ir.Model) -> ir.passes.PassResult:
    """Run a pass on a model.

    `onnx_ir` wraps what `requires` and `ensures` raise in errors of its own; here they are unwrapped.

    Raises:
        OhmfoldError: What the pass raised.
        ModelError: A condition of the pass failed with another error; names the pass.
    """
    try:
        return pass_(model)
    except (ir.passes.PassError, ir.passes.InvariantError) as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OhmfoldError):
            cause = cause.__cause__
        if cause is not None:
            raise cause from None
        raise ModelError(f"{type(pass_).__name__} failed: {error}") from error
