"""The masking verdict: what the findings of all checks come to.

1. `masked`, if any check says "masked". Each has an effect size and an interval below which it does not, and each is a
   sign that the literature knows from gradients that fail, and from nothing else.
2. Otherwise `inconclusive`, if any check says "suspicious": something has to be explained, or a stronger attack run.
3. Otherwise `inconclusive`, if a check that the verdict needs (`checks.NEEDED`) has not enough data.
4. Otherwise `trustworthy`: the white-box attacks did what they could, and nothing else did better.

`trustworthy` says that what the white-box attacks leave together, image by image, is no illusion; it does not say that
the figure is high, nor that no attack will ever do better.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .checks import CHECKS, NEEDED

if TYPE_CHECKING:
    from .evidence import Evidence
    from .finding import Finding

__all__ = ["Label", "Verdict", "judge_evidence"]

Label = Literal["trustworthy", "masked", "inconclusive"]


@dataclass(frozen=True)
class Verdict:
    """What the evidence comes to.

    Attributes:
        label: See the module.
        findings: Of every check, in the order of `checks.CHECKS`.
        because: Names of the checks that decided: those that say "masked", "suspicious", or lack data that the verdict
            needs; none for "trustworthy".
    """

    label: Label
    findings: tuple[Finding, ...]
    because: tuple[str, ...]


def judge_evidence(evidence: Evidence) -> Verdict:
    """Run every check on the evidence, and say what the findings come to: the rules of the module, in their order."""
    findings = {check: check(evidence) for check in CHECKS}
    masked = [found.name for found in findings.values() if found.outcome == "masked"]
    suspicious = [found.name for found in findings.values() if found.outcome == "suspicious"]
    lacking = [findings[check].name for check in NEEDED if findings[check].outcome == "not enough data"]
    label: Label = "masked" if masked else "inconclusive" if suspicious or lacking else "trustworthy"
    because = masked or suspicious or lacking
    return Verdict(label, tuple(findings.values()), tuple(because))
