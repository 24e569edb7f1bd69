"""Records that other commands write as JSON and that nothing else reads back: an analysis, and a run on a data set."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from ..analysis.error_terms import ErrorTerms
from ..analysis.lipschitz import Lipschitz
from ..analysis.report import Analysis, LayerAnalysis
from ..record_file import Record
from ..run_record import ExactnessRow  # noqa: TC001 - pydantic reads the annotations

__all__ = ["AnalysisRecord", "ChipRecord", "DataRun", "TileRow"]

Count = Annotated[int, Field(ge=0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
_LENGTHS = tuple(ErrorTerms.__dataclass_fields__)


class _Norms(Record):
    """`Lipschitz`; of a product over many layers, what overflowed is null."""

    spectral: Finite | None
    infinity: Finite | None
    operator_spectral: Finite | None
    operator_infinity: Finite | None

    def norms(self) -> Lipschitz:
        return Lipschitz(
            **{name: float("inf") if value is None else value for name, value in self.model_dump().items()}
        )


class _AnalysedLayer(Record):
    """`LayerAnalysis`, as JSON."""

    name: str
    kind: str
    shape: tuple[Count, ...]
    options: str
    mapping: str | None
    input_shape: tuple[Count, ...]
    steps: tuple[Finite, Finite]
    codes: tuple[int, ...]
    counts: tuple[Count, ...]
    terms: dict[str, Finite | dict[str, Finite | None]]
    lipschitz: _Norms

    def lengths(self) -> ErrorTerms:
        """The terms of Eq. 1.

        Raises:
            ValueError: One is missing or no number.
        """
        found = {}
        for name in _LENGTHS:
            value = self.terms.get(name)
            if not isinstance(value, float):
                raise ValueError(  # noqa: TRY004 - of a file's content
                    f"layer {self.name}: found no length of {name!r} among its terms"
                )
            found[name] = value
        return ErrorTerms(**found)


class AnalysisRecord(Record):
    """`analysis.json`, the figures of `ohmfold analyze --out`."""

    artifact: str
    artifact_sha256: str
    float_model: str
    adversarial: str | None
    layers: tuple[_AnalysedLayer, ...]
    product: _Norms
    attack: dict[str, Any]
    rounding: Finite

    def analysis(self) -> Analysis:
        """The analysis that was written.

        Raises:
            ValueError: A layer lacks a term.
        """
        rows = tuple(
            LayerAnalysis(
                **{
                    name: getattr(layer, name)
                    for name in LayerAnalysis.__dataclass_fields__
                    if name not in ("terms", "lipschitz")
                },
                terms=layer.lengths(),
                lipschitz=layer.lipschitz.norms(),
            )
            for layer in self.layers
        )
        return Analysis(rows, self.product.norms(), self.attack)


class _Judged(Record):
    correct: Count
    images_per_second: float


class TileRow(Record):
    """A layer on its tiles: what `ohmfold run --hardware --json` tells of it."""

    name: str
    tiles: Count
    utilisation: float
    reads_per_image: Count
    certified_reads: float
    clipped: dict[str, Any]
    clipped_reads: float
    fixed_point_error: float
    converters: dict[str, float] | None
    cost: dict[str, Any]


class ChipRecord(Record):
    """A chip that a model ran on."""

    name: str
    sha256: str
    toml: str
    seed: Count
    calibration_images: Count
    tiles: Count
    certified_reads: float
    clipping_images: Count
    clipped_reads: float
    layers: tuple[TileRow, ...]
    cost: dict[str, Any]


class DataRun(Record):
    """What `ohmfold run --json` prints: who ran a model on a data set, and what a chip did with it."""

    file: str
    sha256: str
    data: str
    images: Count
    left_out: Count
    witnesses: dict[str, _Judged]
    exactness: tuple[ExactnessRow, ...]
    integers: Count
    differing: Count
    hardware: ChipRecord | None = None
