"""`ohmfold analyze`: what an attack and quantisation each do to every layer, and how large the weight error is."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Data, Json, Seed  # noqa: TC001 - typer reads the annotations
from .output import count, print_json, progress_bar, say, table
from .quiet import import_onnxruntime

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch import nn

    from ..analysis.attacked_images import AttackedImages
    from ..analysis.report import Analysis, LayerAnalysis
    from ..artifact import Artifact

__all__ = ["analyze"]

_EPSILON = "0.3"
_ATTACKING = 0.4
"""Share of the progress bar before the analysis proper."""


def analyze(
    file: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="An integer model compiled by ohmfold.")],
    float_model: Annotated[
        str, typer.Option("--float", metavar="MODEL", help="The float model that it was compiled from.")
    ],
    *,
    adversarial: Annotated[
        Path | None,
        typer.Option(
            "--adversarial",
            metavar="SET.npz",
            show_default="PGD, 40 steps, on the float model",
            help="A set that `ohmfold attack --out` wrote.",
        ),
    ] = None,
    data: Data = None,
    epsilon: Annotated[
        str | None,
        typer.Option(
            metavar="0.3|76|8/255", show_default=_EPSILON, help="Radius of the PGD: a share, or pixel codes."
        ),
    ] = None,
    images: Annotated[int, typer.Option("--images", min=1, help="How many images to use.")] = 64,
    seed: Seed = 0,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Keep figures as JSON and CSV, and charts as SVG, there."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Tell the attack's and the quantisation's share in each layer's error, and the norms of the weight error."""
    radius = _radius(adversarial, data, epsilon)
    from ..analysis.report import check_analysis_folder

    if out is not None:
        check_analysis_folder(out)
    with progress_bar("analyze") as progress:
        progress("loading", 0.0)
        import_onnxruntime()
        from ..analysis.attacked_images import read_attacked
        from ..analysis.quantised_layers import layers_of, recipe_of
        from ..analysis.report import analyse, write_analysis
        from ..artifact import Artifact

        artifact = Artifact.load(file)
        recipe_of(artifact)
        attacked = None if adversarial is None else read_attacked(adversarial).first(images)
        module, graph = _float_forms(float_model, artifact)
        network = layers_of(artifact, graph)
        if attacked is None:
            attacked = _attack(artifact, module, data, radius, images, seed, progress)
        found = analyse(
            network,
            attacked,
            lambda step, share: progress(step, _ATTACKING + (1 - _ATTACKING) * share),
        )
        about = {
            "artifact": str(file),
            "artifact_sha256": artifact.sha256,
            "float_model": float_model,
            "adversarial": None if adversarial is None else str(adversarial),
        }
        files = () if out is None else write_analysis(found, network, out, about)
    if as_json:
        print_json(about | {"folder": None if out is None else str(out)} | found.document())
        return
    _show(found, artifact.sha256)
    if out is not None:
        say(f"wrote {out}: {', '.join(files)}")


def _radius(adversarial: Path | None, data: str | None, epsilon: str | None) -> float:
    """The radius of the attack that is made here, in codes."""
    from ...errors import RecipeError
    from ..attacks.epsilon import parse_epsilon

    if adversarial is not None:
        for option, value in (("--data", data), ("--epsilon", epsilon)):
            if value is not None:
                raise RecipeError(
                    f"{option} is about images that are attacked here; a set (--adversarial) brings its own"
                )
    radius = parse_epsilon(_EPSILON if epsilon is None else epsilon)
    if not radius:
        raise RecipeError(f"--epsilon {epsilon}: a radius of 0 codes leaves every image alone; expected more")
    return radius


def _float_forms(model: str, artifact: Artifact) -> tuple[nn.Module, ir.Model]:
    """The float model to differentiate, and to run value by value; what was trained as integers without its codes."""
    from ...models.quantised import Quantised
    from ..artifact import load_model_file
    from ..attacks.sources import load_source

    module: Any = load_source(model, integer=False)
    if model.endswith(".onnx"):
        return module, load_model_file(model)[0]
    from ...export import export_module

    module = module.plain().eval() if isinstance(module, Quantised) else module
    shape = artifact.program.inputs[0].shape or ()
    return module, export_module(module, tuple(int(size or 0) for size in shape[1:]))


def _attack(
    artifact: Artifact,
    module: nn.Module,
    data: str | None,
    radius: float,
    images: int,
    seed: int,
    progress: Any,
) -> AttackedImages:
    from ..analysis.attacked_images import attack_float_model
    from ..judged import judged_images

    held_out = judged_images(data, artifact).data
    return attack_float_model(
        module,
        held_out.subset(min(images, len(held_out)), seed),
        radius,
        seed=seed,
        progress=lambda done, todo: progress("attacking the float model", _ATTACKING * done / max(1, todo)),
    )


def _show(found: Analysis, sha256: str) -> None:
    table(
        "Change of each layer's output (Eq. 1), mean lengths relative to |W x|",
        ["layer", "|W x|", "attack |W dx|", "quantisation |dW x|", "cross |dW dx|", "all of it"],
        [_terms(layer) for layer in found.layers],
    )
    norms = [(*_labels(layer), *_norms(layer.lipschitz)) for layer in found.layers]
    table(
        "Lipschitz constants of the weight error dW (Eq. 2)",
        ["layer", "weights", "p = 2, unfolded", "p = 2, operator", "p = inf, unfolded", "p = inf, operator"],
        [*norms, ("product", "", *_norms(found.product))],
        left=2,
    )
    attack = found.attack
    ball = f"norm {attack['norm']}, radius {attack['radius']:g}"
    held = f"; it left {count(attack['unchanged'])} others as they are" if attack["unchanged"] else ""
    other = attack["artifact_sha256"] not in (None, sha256)
    say(
        f"{count(attack['images'])} images under {attack['name']}, {ball}, gradient of {attack['source']}{held}",
        *(["the set was made for another artifact"] if other else []),
        f"the three terms sum to what was observed, to within {found.rounding:.1e} of the outputs' length",
    )


def _labels(layer: LayerAnalysis) -> tuple[str, str]:
    return layer.name, layer.options if layer.mapping is None else f"{layer.options}; {layer.mapping}"


def _terms(layer: LayerAnalysis) -> tuple[str, ...]:
    from ..analysis.report import TERMS

    shares = [layer.terms.relative(term) for term in TERMS]
    return (
        layer.name,
        f"{layer.terms.signal:.4g}",
        *("-" if share is None else f"{100 * share:.2f} %" for share in shares),
    )


def _norms(norms: Any) -> tuple[str, ...]:
    fields = ("spectral", "operator_spectral", "infinity", "operator_infinity")
    return tuple(f"{getattr(norms, name):.4g}" for name in fields)
