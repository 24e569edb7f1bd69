"""The masking verdict: whether a robust accuracy is one, or only a gradient that cannot be used.

    model --probe (attacks of a plan)--> evidence --checks--> findings --rules--> trustworthy, masked or inconclusive

Importing this package imports no torch; gathering evidence does.
"""

from .checks import CHECKS, NEEDED
from .evidence import Evidence, Gradients, ProbeRun, Repeats
from .finding import Finding
from .plan import Plan, PlannedRun, default_plan
from .probe import gather
from .verdict import Verdict, judge_evidence

__all__ = [
    "CHECKS",
    "NEEDED",
    "Evidence",
    "Finding",
    "Gradients",
    "Plan",
    "PlannedRun",
    "ProbeRun",
    "Repeats",
    "Verdict",
    "default_plan",
    "gather",
    "judge_evidence",
]
