"""How much of a campaign is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .planning import Plan, PlannedAttack

    Tell = Callable[[str, float], None]

__all__ = ["Meter"]


class Meter:
    """Tells how much of a campaign is done: attacks by what they roughly take, the verdict as the last quarter.

    Args:
        plan: What is to be done.
        progress: Called with what is being done and the share of all that is done; None: nobody listens.
        with_verdict: Whether a verdict follows.
    """

    def __init__(self, plan: Plan, progress: Tell | None, *, with_verdict: bool) -> None:
        total = sum(one.weight for one in plan.attacks)
        self._share = 0.75 if with_verdict else 1.0
        self._weights = {one.key: self._share * one.weight / total for one in plan.attacks}
        self._before = 0.0
        self._progress = progress

    def tell(self, one: PlannedAttack, share: float) -> None:
        """Of an attack, this share is done."""
        if self._progress is not None:
            self._progress(one.key, self._before + share * self._weights[one.key])

    def finished(self, one: PlannedAttack) -> None:
        """An attack is done."""
        self.tell(one, 1.0)
        self._before += self._weights[one.key]

    def verdict(self, share: float) -> None:
        """Of the verdict, this share is done."""
        if self._progress is not None:
            self._progress("masking verdict", self._share + share * (1 - self._share))
