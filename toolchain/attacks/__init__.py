"""Attacks on the artifact: found with the twin's gradients or with queries, judged on the device's own bits.

Importing this package imports no torch; running a gradient attack does.
"""

from .base import Attack, AttackResult, Judge, Problem, worst_case
from .bim import BIM
from .catalogue import ATTACKS, make_attack
from .epsilon import parse_epsilon
from .evaluate import Evaluation, evaluate
from .fgsm import FGSM
from .noise import GaussianNoise, UniformNoise
from .pgd import PGD
from .storage import SavedAttack, load_adversarial, save_adversarial

__all__ = [
    "ATTACKS",
    "BIM",
    "FGSM",
    "PGD",
    "Attack",
    "AttackResult",
    "Evaluation",
    "GaussianNoise",
    "Judge",
    "Problem",
    "SavedAttack",
    "UniformNoise",
    "evaluate",
    "load_adversarial",
    "make_attack",
    "parse_epsilon",
    "save_adversarial",
    "worst_case",
]
