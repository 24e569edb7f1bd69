"""`ohmfold inspect`: any ONNX model node by node, an artifact layer by layer, and where its accuracy goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .compile import decibels, layer_table, load_source
from .options import Data, Json, OnnxFile  # noqa: TC001 - typer reads the annotations
from .output import count, fold_lines, print_json, progress_bar, say, table
from .quiet import import_onnxruntime

if TYPE_CHECKING:
    import onnx_ir as ir

    from ..analysis.layers import ActivationError
    from ..artifact import Artifact
    from ..program import Layer, Program

__all__ = ["inspect"]


def inspect(
    file: OnnxFile,
    *,
    float_model: Annotated[
        str | None,
        typer.Option(
            "--float",
            metavar="MODEL",
            help="The float model that an artifact was made from, to compare with.",
        ),
    ] = None,
    data: Data = None,
    images: Annotated[int, typer.Option("--images", min=1, help="How many images the comparison uses.")] = 64,
    nodes: Annotated[bool, typer.Option("--nodes/--no-nodes", help="Show the table of nodes.")] = True,
    as_json: Json = False,
) -> None:
    """Show a model: nodes and weights; for an artifact also layers, bounds, notes, recipe and errors."""
    with progress_bar("inspect") as progress:
        progress("reading", 0.0)
        from ..artifact import Artifact

        artifact = Artifact.load(file)
        node_rows, weight_rows = _nodes(artifact.model), _initialisers(artifact.model)
        program, refused = _program(artifact)
        errors: tuple[ActivationError, ...] = ()
        judged = 0
        if float_model is not None:
            progress("comparing with the float model", 0.4)
            errors, judged = _errors(artifact, float_model, data, images)
    document = {
        "file": str(file),
        "sha256": artifact.sha256,
        "inputs": [str(_value(value)) for value in artifact.model.graph.inputs],
        "outputs": [str(_value(value)) for value in artifact.model.graph.outputs],
        "nodes": node_rows,
        "initializers": weight_rows,
        "metadata": artifact.metadata(),
        "notes": artifact.notes,
    }
    layers = _layer_rows(artifact) if program is not None else ()
    if program is not None:
        document["program"] = [_describe(layer, program) for layer in program.layers]
        document["layers"] = [row.model_dump(mode="json") for row in layers]
    else:
        document["no_program"] = refused
    if errors:
        document["activation_errors"] = [vars(error) for error in errors]
    if as_json:
        print_json(document)
        return
    if nodes:
        _show_nodes(node_rows, weight_rows)
    if program is None:
        say(f"Not an integer model that can be emulated: {refused.partition('; supported')[0]}", "")
    else:
        _show_program(document["program"])  # type: ignore[arg-type]
        layer_table(layers)
    fold_lines("Notes", artifact.notes)
    _show_metadata(artifact)
    if errors:
        _show_errors(errors, judged)
        _explain_mu_law(artifact)
    say(f"{file}: {len(node_rows)} nodes, SHA-256 {artifact.sha256}")


def _program(artifact: Artifact) -> tuple[Program | None, str]:
    """The integer program, or None and the reason why there is none."""
    from ...errors import OhmfoldError

    try:
        program = artifact.program
    except OhmfoldError as error:
        return None, str(error)
    if not any(True for _ in program.weighted_layers()) and not artifact.compiled_here:
        return None, "no layer holds integer weights"
    return program, ""


def _layer_rows(artifact: Artifact) -> Any:
    from ..analysis.layers import layer_rows

    return layer_rows(artifact)


def _value(value: ir.Value) -> str:
    return f"{value.name}: {_form(value)}"


def _form(value: ir.Value) -> str:
    dtype = "?" if value.dtype is None else value.dtype.name.lower()
    shape = "?" if value.shape is None else ", ".join(str(d) for d in value.shape)
    return f"{dtype}[{shape}]"


def _nodes(model: ir.Model) -> list[dict[str, str]]:
    """A row for each node; shapes that the file does not hold are inferred."""
    shown = _with_shapes(model)
    return [
        {
            "name": node.name or "",
            "op": node.op_type if not node.domain else f"{node.domain}.{node.op_type}",
            "output": ", ".join(value.name or "" for value in node.outputs),
            "dtype": ", ".join("?" if v.dtype is None else v.dtype.name.lower() for v in node.outputs),
            "shape": "; ".join(
                "?" if v.shape is None else ", ".join(str(d) for d in v.shape) for v in node.outputs
            ),
        }
        for node in shown.graph
    ]


def _with_shapes(model: ir.Model) -> ir.Model:
    import onnx
    import onnx_ir as ir

    try:
        return ir.from_proto(onnx.shape_inference.infer_shapes(ir.to_proto(model)))
    except Exception:  # noqa: BLE001 - a model without inferable shapes is shown with question marks
        return model


def _initialisers(model: ir.Model) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "form": _form(value),
            "bytes": int(value.const_value.nbytes) if value.const_value is not None else 0,
        }
        for name, value in model.graph.initializers.items()
    ]


def _describe(layer: Layer, program: Program) -> dict[str, Any]:
    """One layer of a program as plain values."""
    spec = program.tensors.get(layer.output)
    found: dict[str, Any] = {
        "name": layer.name,
        "kind": type(layer).__name__,
        "inputs": list(layer.inputs),
        "outputs": list(layer.outputs),
        "result": "?" if spec is None else str(spec).partition(": ")[2],
    }
    weight = getattr(layer, "weight", None)
    if weight is not None:
        found["weight"] = f"{weight.dtype}[{', '.join(map(str, weight.shape))}]"
    return found


def _errors(
    artifact: Artifact, float_model: str, spec: str | None, images: int
) -> tuple[tuple[ActivationError, ...], int]:
    import_onnxruntime()
    from ...models.datasets import resolve_dataset
    from ..analysis.layers import activation_errors
    from ..judged import evaluation_set

    data, _ = evaluation_set(resolve_dataset(spec), artifact)
    pixels = data.images[:images]
    source = load_source(float_model)
    if not isinstance(source, Path):
        from ...export import export_module

        source = export_module(source, tuple(pixels.shape[1:]))
    return activation_errors(artifact, source, pixels), len(pixels)


def _show_nodes(nodes: list[dict[str, str]], initialisers: list[dict[str, Any]]) -> None:
    columns = ["name", "op", "output", "dtype", "shape"]
    table("Nodes", columns, [[row[name] for name in columns] for row in nodes], left=len(columns))
    total = sum(row["bytes"] for row in initialisers)
    table(
        f"Initialisers, {count(total)} bytes",
        ["name", "type and shape", "bytes"],
        [(row["name"], row["form"], count(row["bytes"])) for row in initialisers],
        left=2,
    )


def _show_program(program: list[dict[str, Any]]) -> None:
    table(
        "Program",
        ["layer", "kind", "reads", "writes", "weights"],
        [
            (
                row["name"],
                row["kind"],
                ", ".join(row["inputs"]),
                f"{', '.join(row['outputs'])}: {row['result']}",
                row.get("weight", ""),
            )
            for row in program
        ],
        left=5,
    )


def _show_metadata(artifact: Artifact) -> None:
    """Print how an artifact was made; per-layer metadata is in the tables already."""
    metadata = artifact.metadata()
    wanted = [name for name in ("schema", "recipe", "source", "calibration", "versions") if name in metadata]
    fold_lines("Provenance", [f"{name}: {json.dumps(metadata[name], sort_keys=True)}" for name in wanted])


def _show_errors(errors: tuple[ActivationError, ...], images: int) -> None:
    known = [(error.snr_db, error.name) for error in errors if error.snr_db is not None]
    _, worst = min(known, key=lambda pair: pair[0], default=(None, None))
    table(
        f"Integer against float activations, {images} images",
        ["tensor", "SNR", "largest error", "mean error", ""],
        [
            (
                error.name,
                decibels(error.snr_db),
                _figure(error.max_abs_error),
                _figure(error.mean_abs_error),
                "<- worst" if error.name == worst else "",
            )
            for error in errors
        ],
    )


def _explain_mu_law(artifact: Artifact) -> None:
    """Say where the comparison may show a map that the recipe asked for and not an error."""
    recipe = artifact.metadata().get("recipe")
    mapped = recipe.get("mu_law") if isinstance(recipe, dict) else None
    if mapped:
        say(
            f"The recipe maps the weights of {', '.join(mapped)} by the mu-law and the float model does not: "
            "from there on, the figures hold the map's effect too.",
            "",
        )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
