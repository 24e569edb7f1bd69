"""What a check says, and the statistics by which it decides.

A check compares what two attacks left of the same images, image by image:

- how many images fall to the second attack alone, as a share of all that are right without an attack (the amount by
  which the first one overstates the robust accuracy), with its Wilson interval at 95 %;
- where one attack ought not to beat the other at all, McNemar's exact test (McNemar 1947, Psychometrika 12, 153-157):
  of `b` images that fall to the weaker one alone and `c` that fall to the stronger one alone, were neither better, `b`
  would be binomial with n = b + c and p = 1/2.

On a network that hides nothing, more starts, more steps, another loss or queries gain a little too (0 to 4 points over
all white-box attacks together, on MNIST networks trained plainly and adversarially; 15 to 98 on the same with large
logits or a mu-law map). So a share counts as masking only where it is at least `MASKED` and its interval begins at
`TOLERATED` or above, and as suspicious only where it is at least `TOLERATED` and its interval begins at half of that or
above. With fewer images than `images_needed`, even if none shows a sign, a share of `MASKED` cannot be excluded: then
nothing is said.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

from ...analysis.intervals import wilson

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "CONFIDENCE",
    "LEVEL",
    "MASKED",
    "TOLERATED",
    "Finding",
    "Outcome",
    "counted",
    "decided",
    "images_needed",
    "mcnemar",
    "percent",
    "too_few",
]

Outcome = Literal["clear", "suspicious", "masked", "not enough data"]

CONFIDENCE = 0.95
"""Of every interval."""
LEVEL = 0.01
"""Of McNemar's test, one-sided."""
TOLERATED = 0.05
"""A share below this is what a robust network shows too."""
MASKED = 0.10
"""A share from this on, with an interval that begins at `TOLERATED` or above, is masking."""


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        name: The check.
        outcome: "clear", "suspicious" (a sign, or too weak an attack: no figure can be trusted before it is explained),
            "masked" (what stands owes it to the gradient), or "not enough data".
        effect: What the check measured, a share; its docstring says of what. None where there was nothing to measure.
        needed: From how many images on the check says anything.
        text: The evidence, in a sentence.
        source: Who described the sign.
    """

    name: str
    outcome: Outcome
    effect: float | None
    needed: int
    text: str
    source: str


def images_needed(share: float = MASKED, confidence: float = CONFIDENCE) -> int:
    """Return from how many images on none in `n` excludes a share: the least `n` with `wilson(0, n)[1] <= share`.

    With z the normal quantile of (1 + confidence) / 2, `n = z**2 (1 - share) / share`, rounded up.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    return math.ceil(z * z * (1 - share) / share)


def mcnemar(weaker_alone: int, stronger_alone: int) -> float:
    """Return the probability of at least `weaker_alone` of the discordant images, were both attacks alike.

    Exact: `sum over k >= b of C(b + c, k) / 2**(b + c)`, summed in integers.
    """
    total = weaker_alone + stronger_alone
    return float(sum(math.comb(total, k) for k in range(weaker_alone, total + 1)) / 2**total)


def decided(count: int, of: int, *, worst: Outcome = "masked") -> Outcome:
    """Return what `count` of `of` images mean: see the module.

    Args:
        count: Images that show the sign.
        of: Images that could.
        worst: What the check says at most.
    """
    if of < images_needed():
        return "not enough data"
    share = count / of
    low, _ = wilson(count, of, CONFIDENCE)
    if share >= MASKED and low >= TOLERATED:
        return worst
    return "suspicious" if share >= TOLERATED and low >= TOLERATED / 2 else "clear"


def counted(flags: NDArray[np.bool_]) -> int:
    """How many are true."""
    return int(flags.sum())


def percent(count: int, of: int) -> str:
    """A share of images in words, with its interval."""
    if not of:
        return "0 of 0 images"
    low, high = wilson(count, of, CONFIDENCE)
    return f"{count} of {of} images ({count / of:.1%}, 95 % interval {low:.1%} to {high:.1%})"


def too_few(name: str, source: str, text: str, effect: float | None = None) -> Finding:
    """The finding of a check that has nothing, or too little, to go by."""
    return Finding(name, "not enough data", effect, images_needed(), text, source)
