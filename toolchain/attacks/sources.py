"""Whose gradients an attack follows, by name: the twin, the float parent, the unmapped twin, substitutes.

| name | what it is |
|---|---|
| `twin` | the artifact's own bits, straight-through gradients (`toolchain.twin`) |
| `parent` | the float model that the artifact was compiled from |
| `unmapped` | the twin of the artifact compiled again from its parent, without the mu-law map |
| `substitute:NAME` | another model, float or integer: what an attacker has who cannot see the artifact |

A model is named as everywhere: a model of the zoo, a checkpoint, an ONNX file. Everything is checked when `Sources` is
made, before an attack runs; a model is loaded when it is first asked for.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import DataError, ModelError, RecipeError, UnsupportedError
from ..judged import pixels_sha256

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from ..artifact import Artifact
    from .base import GradientSource

    Model = str | Path | nn.Module

__all__ = ["SUBSTITUTE", "Sources", "load_source", "substitute_names"]

SUBSTITUTE = "substitute:"
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_ONNX = ".onnx"


class Sources:
    """Gradient sources of one artifact, made when first asked for.

    Args:
        artifact: What is attacked.
        parent: The float model that it was compiled from: a module, a zoo name, a checkpoint or a float ONNX file.
        substitutes: Other models, by their names.
        calibration: uint8 images that calibrate the unmapped artifact; those of the artifact itself are best.

    Attributes:
        artifact, calibration: As given.

    Raises:
        DataError: A file does not exist.
    """

    def __init__(
        self,
        artifact: Artifact,
        *,
        parent: Model | None = None,
        substitutes: Mapping[str, Model] | None = None,
        calibration: NDArray[np.uint8] | None = None,
    ) -> None:
        self.artifact = artifact
        self._parent = parent
        self._substitutes = dict(substitutes or {})
        self.calibration = calibration
        self._made: dict[str, GradientSource] = {}
        for model in (parent, *self._substitutes.values()):
            _check_there(model)

    @property
    def substitutes(self) -> tuple[str, ...]:
        """Names of the substitutes, as sources: `substitute:NAME`."""
        return tuple(f"{SUBSTITUTE}{name}" for name in self._substitutes)

    @property
    def models(self) -> dict[str, Model]:
        """The models that were given, by the names of their sources; the artifact is not among them."""
        given = {"parent": self._parent, **{f"{SUBSTITUTE}{k}": v for k, v in self._substitutes.items()}}
        return {name: model for name, model in given.items() if model is not None}

    def missing(self, name: str) -> str | None:
        """Why there is no such source; None where there is one.

        Raises:
            RecipeError: No source can have this name.
        """
        if name.startswith(SUBSTITUTE):
            known = name in self.substitutes
            return None if known else f"no substitute is called {name.removeprefix(SUBSTITUTE)!r}"
        if name not in _REASONS:
            raise RecipeError(
                f"unknown gradient source {name!r}; expected one of {', '.join(_REASONS)}, {SUBSTITUTE}NAME"
            )
        return _REASONS[name](self)

    def __getitem__(self, name: str) -> GradientSource:
        """The source, from float32 pixels in [0, 1] to logits.

        Raises:
            DataError: There is no such source; says why.
            UnsupportedError: The artifact has no twin, or a model no gradient.
            CheckpointError, ModelError: A model cannot be loaded.
        """
        if name not in self._made:
            reason = self.missing(name)
            if reason is not None:
                raise DataError(f"no gradient source {name!r}: {reason}")
            self._made[name] = self._make(name)
        return self._made[name]

    def all(self) -> dict[str, GradientSource]:
        """Every source that can be had, by name; an artifact without a gradient is left out.

        Raises:
            CheckpointError, ModelError: A model that was given cannot be loaded.
        """
        found = {}
        for name in (*_REASONS, *self.substitutes):
            if self.missing(name) is not None:
                continue
            try:
                found[name] = self[name]
            except UnsupportedError:
                if name != "twin":
                    raise
        return found

    def check(self, names: Sequence[str], images: NDArray[np.uint8]) -> None:
        """Load sources and let each see one image, so that what is wrong with them shows before any work.

        Raises:
            DataError: A source is missing, or does not take such images.
        """
        import torch

        pixels = torch.from_numpy(images[:1]).float() / 255
        classes = None
        for name in names:
            source = self[name]
            try:
                with torch.no_grad():
                    logits = source(pixels)
            except (RuntimeError, ValueError) as error:
                raise DataError(
                    f"gradient source {name!r} does not take images of shape {images.shape[1:]}: "
                    f"{str(error).splitlines()[0]}"
                ) from None
            if logits.ndim != 2 or (classes is not None and logits.shape[1] != classes):
                raise DataError(
                    f"gradient source {name!r} gives {tuple(logits.shape)} for one image; "
                    f"expected (1, {classes or 'classes'})"
                )
            classes = logits.shape[1]

    def fingerprint(self) -> dict[str, str]:
        """What the models are, by the hash of their files or weights; a model of the zoo by its name."""
        found = {name: _identity(model) for name, model in self.models.items()}
        if self.calibration is not None and self._parent is not None:
            found["calibration"] = pixels_sha256(self.calibration)
        return found

    def _make(self, name: str) -> GradientSource:
        if name == "twin":
            return _twin(self.artifact)
        if name == "parent":
            return load_source(self._required_parent(), integer=False)
        if name == "unmapped":
            return self._unmapped()
        return load_source(self._substitutes[name.removeprefix(SUBSTITUTE)])

    def _required_parent(self) -> Model:
        if self._parent is None:
            raise DataError("no parent was given")
        return self._parent

    def _unmapped(self) -> GradientSource:
        """The twin of the artifact compiled by its own recipe, less the mu-law map."""
        from ..compiler import compile as compile_model
        from ..recipe import Recipe

        recipe = Recipe(**{**_recipe(self.artifact), "mu_law": {}})
        parent = self._required_parent()
        if self.calibration is None:
            raise DataError("the unmapped artifact is compiled anew; expected images that calibrate it")
        if isinstance(parent, str | Path) and str(parent).endswith(_ONNX):
            return _twin(compile_model(parent, self.calibration, recipe))
        return _twin(compile_model(_without_maps(_module(parent)), self.calibration, recipe))


def _no_twin(sources: Sources) -> str | None:
    if sources.artifact.program.logits is None:
        return "the model has no logits"
    return None


def _no_parent(sources: Sources) -> str | None:
    if sources._parent is not None:  # noqa: SLF001 - a function of the class, in a table
        return None
    if not sources.artifact.compiled_here:
        return "the artifact was made by others, so no float parent of it is known; name one with --parent"
    return "the float model that it was compiled from was not given (--parent)"


def _no_unmapped(sources: Sources) -> str | None:
    if not _recipe(sources.artifact).get("mu_law") and not _mapped_in_graph(sources.artifact):
        return "the artifact has no mu-law map"
    if not _recipe(sources.artifact).get("mu_law") and str(sources._parent).endswith(_ONNX):  # noqa: SLF001
        return "the mu-law map is in the parent's graph; give the model without it as --parent"
    return _no_parent(sources)


_REASONS = {"twin": _no_twin, "parent": _no_parent, "unmapped": _no_unmapped}


def _recipe(artifact: Artifact) -> dict[str, Any]:
    found = artifact.metadata().get("recipe")
    return found if isinstance(found, dict) else {}


def _mapped_in_graph(artifact: Artifact) -> bool:
    return any("mu-law map in the graph" in note for note in artifact.notes)


def _twin(artifact: Artifact) -> GradientSource:
    from ..twin import Twin

    try:
        return Twin(artifact)
    except UnsupportedError as error:
        raise UnsupportedError(
            f"the artifact has no gradient ({error}); attack it by queries (--suite query), or through another model "
            "(--substitute)"
        ) from None


def load_source(model: Model, *, integer: bool = True) -> GradientSource:
    """Return a model as a gradient source: a module as it is, a checkpoint, a float ONNX file, or an artifact's twin.

    Args:
        model: A module, a zoo name or a path.
        integer: Whether an integer model will do.

    Raises:
        CheckpointError, ModelError: It cannot be loaded.
        UnsupportedError: It has no gradient.
        DataError: It is an integer model where a float one is expected.
    """
    if not (isinstance(model, str | Path) and str(model).endswith(_ONNX)):
        return _module(model).eval()
    from ..artifact import Artifact
    from ..float_torch import FloatModule

    artifact = Artifact.load(model)
    if not _is_integer(artifact):
        return FloatModule(model).eval()
    if not integer:
        raise DataError(
            f"{model} is an integer model; expected the float model that the artifact was made from"
        )
    return _twin(artifact)


def _is_integer(artifact: Artifact) -> bool:
    """Whether a model computes with integers: it was compiled here, or holds an operator that does."""
    kinds = ("QLinear", "DequantizeLinear", "MatMulInteger", "ConvInteger", "QGemm")
    return artifact.compiled_here or any(node.op_type.startswith(kinds) for node in artifact.model.graph)


def _module(model: Model) -> nn.Module:
    if isinstance(model, str | Path):
        from ...models.checkpoints import load_model

        return load_model(model)
    from torch import nn as torch_nn

    if not isinstance(model, torch_nn.Module):
        raise ModelError(f"found a {type(model).__name__}; expected a torch module, a zoo name or a path")
    return model


def _without_maps(module: nn.Module) -> nn.Module:
    """A copy of a module whose weights are those before their mu-law maps."""
    from copy import deepcopy

    from torch.nn.utils import parametrize

    from ...models.mu_law import MuLaw

    bare = deepcopy(module)
    for layer in bare.modules():
        if parametrize.is_parametrized(layer, "weight") and any(
            isinstance(step, MuLaw)
            for step in layer.parametrizations.weight  # type: ignore[union-attr]
        ):
            # Torch gives a parametrised layer a class of its own and takes the weight out of that class; a deep copy
            # shares the class with its original, which would lose its weight too.
            kind = type(layer)
            layer.__class__ = type(kind.__name__, kind.__bases__, dict(vars(kind)))
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
    return bare


def _identity(model: Model) -> str:
    if isinstance(model, str | Path):
        path = Path(model)
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else str(model)
    from ...models.checkpoints import weights_sha256

    return weights_sha256(model)


def _check_there(model: Model | None) -> None:
    """Refuse a path at which there is nothing; zoo names have no suffix and no folder."""
    if not isinstance(model, str | Path):
        return
    path = Path(model)
    if (isinstance(model, Path) or path.suffix or path.name != str(model)) and not path.is_file():
        raise DataError(f"{model}: no such file; expected a zoo name, a checkpoint or an ONNX file")


def substitute_names(models: Sequence[str]) -> dict[str, str]:
    """Names for substitutes given as models or `NAME=MODEL`: the file's name without its suffix.

    Raises:
        RecipeError: Two would have the same name.
    """
    named: dict[str, str] = {}
    for text in models:
        given, separator, model = text.partition("=")
        # The name becomes part of file names.
        name, model = (given, model) if separator else (_UNSAFE.sub("-", Path(text).stem), text)
        if not model or name in named or not name or _UNSAFE.search(name):
            problem = "has the name of another" if name in named else "is no model, or its name no name"
            raise RecipeError(
                f"--substitute {text!r} {problem}; expected MODEL or NAME=MODEL, each name once, of letters, "
                "digits, dots, dashes and underscores"
            )
        named[name] = model
    return named
