"""The passes: each maps an ONNX model to an ONNX model and keeps one promise."""

from .apply import apply
from .calibrate_activations import CalibrateActivationsPass
from .canonicalise import CanonicalisePass
from .check import CheckPass
from .correct_bias import CorrectBiasPass
from .fold_batch_norm import FoldBatchNormPass
from .fold_constants import FoldConstantsPass
from .fold_mu_law import FoldMuLawPass
from .fold_normalisation import FoldNormalisationPass
from .lower_qdq import LowerQdqPass
from .lower_to_integers import LowerToIntegersPass
from .name_layers import NameLayersPass
from .prove_ranges import ProveRangesPass
from .quantise_weights import QuantiseWeightsPass

__all__ = [
    "CalibrateActivationsPass",
    "CanonicalisePass",
    "CheckPass",
    "CorrectBiasPass",
    "FoldBatchNormPass",
    "FoldConstantsPass",
    "FoldMuLawPass",
    "FoldNormalisationPass",
    "LowerQdqPass",
    "LowerToIntegersPass",
    "NameLayersPass",
    "ProveRangesPass",
    "QuantiseWeightsPass",
    "apply",
]
