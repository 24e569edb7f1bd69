"""`ohmfold export`: PyTorch to float ONNX, and what changed on the way."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Data, Json  # noqa: TC001 - typer reads the annotations
from .output import check_writable, print_json, progress_bar, say
from .quiet import import_onnxruntime

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["export"]

_CHECKED = 64


def export(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A model of the zoo (mnist-cnn), a safetensors or torch checkpoint."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE.onnx", help="Where the ONNX model goes.")],
    *,
    input_shape: Annotated[
        str | None,
        typer.Option(
            "--input-shape", metavar="C,H,W", show_default="that of the data", help="Shape of one image."
        ),
    ] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Export a classifier to float ONNX and compare it with PyTorch on some images."""
    check_writable(out)
    shape = None if input_shape is None else parse_shape(input_shape)
    with progress_bar("export") as progress:
        progress("loading", 0.0)
        import onnx_ir as ir

        from ...errors import UnsupportedError
        from ...export import check_export, export_module
        from ...models.checkpoints import load_model
        from ...models.quantised import Quantised
        from ..artifact import write_atomically

        module = load_model(model)
        if isinstance(module, Quantised):
            raise UnsupportedError(
                f"{model} was trained as integers, which a float ONNX file cannot hold: `ohmfold compile` takes it "
                "as it is, with its learned steps"
            )
        images, origin = _images_to_check(data, shape)
        progress("exporting", 0.3)
        exported = export_module(module, tuple(images.shape[1:]))
        progress("comparing with torch", 0.9)
        import_onnxruntime()
        check = check_export(module, exported, images)
        write_atomically(out, ir.to_proto(exported).SerializeToString())
    if as_json:
        print_json(
            {"file": str(out), "input_shape": list(images.shape[1:]), "images_from": origin, **vars(check)}
        )
        return
    say(
        f"wrote {out}, input (N, {', '.join(map(str, images.shape[1:]))})",
        f"compared with torch on {check.images} images of {origin}: logits differ by at most "
        f"{check.largest_difference:.3g} where they reach {check.largest_logit:.3g}; "
        f"the same class for {check.same_labels} of {check.images}",
    )


def parse_shape(text: str) -> tuple[int, ...]:
    """Read `1,28,28`."""
    from ...errors import ModelError

    parts = text.replace("x", ",").split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts) or len(parts) not in (2, 3):
        raise ModelError(f"input shape {text!r}: expected C,H,W or C,L, positive integers such as 1,28,28")
    return tuple(int(part) for part in parts)


def _images_to_check(spec: str | None, shape: tuple[int, ...] | None) -> tuple[NDArray[np.uint8], str]:
    """Images of the data set if they have the shape, else random pixels, and where they are from."""
    if spec is None and shape is not None:
        import numpy as np

        generator = np.random.default_rng(0)
        return generator.integers(0, 256, (_CHECKED, *shape), dtype=np.uint8), "random pixels"
    from ...errors import DataError
    from ...models.datasets import resolve_dataset

    data = resolve_dataset(spec)
    if shape is not None and data.images.shape[1:] != shape:
        raise DataError(
            f"{data.name} has images of shape {data.images.shape[1:]}, the input shape asked for is {shape}"
        )
    return data.images[:_CHECKED], data.name
