"""The proof that every form of a network computes the same bits: witnesses, inputs, comparison, report."""

from .catalogue import ALL, choose, require_some, witnesses_of
from .inputs import Inputs, given_inputs, make_inputs
from .junit import to_junit
from .report import FirstDifference, SkippedWitness, VerifyReport, WitnessRow
from .verify import REFERENCE_IMAGES, SLOW_IMAGES, verify
from .witness_base import Witness
from .witnesses import SharedTwin

__all__ = [
    "ALL",
    "REFERENCE_IMAGES",
    "SLOW_IMAGES",
    "FirstDifference",
    "Inputs",
    "SharedTwin",
    "SkippedWitness",
    "VerifyReport",
    "Witness",
    "WitnessRow",
    "choose",
    "given_inputs",
    "make_inputs",
    "require_some",
    "to_junit",
    "verify",
    "witnesses_of",
]
