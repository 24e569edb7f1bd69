"""Attacks on the artifact: found with the twin's gradients or with queries, judged on the device's own bits.

Importing this package imports no torch; running a gradient attack does.
"""

from .adaptive import AdaptivePGD
from .autoattack import APGDCE, APGDT, FABT
from .base import Attack, Found, Problem
from .bim import BIM
from .carlini_wagner import CarliniWagnerL2
from .catalogue import ATTACKS, make_attack
from .epsilon import parse_epsilon
from .evaluate import Evaluation, evaluate
from .fgsm import FGSM
from .hop_skip_jump import HopSkipJump
from .memory import batch_size_for
from .mim import MIM
from .noise import GaussianNoise, UniformNoise
from .outcome import AttackResult, worst_case
from .pgd import PGD
from .protocols import Judge, ScoreJudge
from .spsa import SPSA
from .square import Square
from .storage import SavedAttack, load_adversarial, save_adversarial

__all__ = [
    "APGDCE",
    "APGDT",
    "ATTACKS",
    "BIM",
    "FABT",
    "FGSM",
    "MIM",
    "PGD",
    "SPSA",
    "AdaptivePGD",
    "Attack",
    "AttackResult",
    "CarliniWagnerL2",
    "Evaluation",
    "Found",
    "GaussianNoise",
    "HopSkipJump",
    "Judge",
    "Problem",
    "SavedAttack",
    "ScoreJudge",
    "Square",
    "UniformNoise",
    "batch_size_for",
    "evaluate",
    "load_adversarial",
    "make_attack",
    "parse_epsilon",
    "save_adversarial",
    "worst_case",
]
