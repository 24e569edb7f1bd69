"""How much of a campaign is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

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
        self._shares = dict.fromkeys(self._weights, 0.0)
        self._progress = progress

    def tell(self, key: str, share: float) -> None:
        """Of an attack, this share is done."""
        self._shares[key] = share
        if self._progress is not None:
            self._progress(key, sum(self._weights[key] * share for key, share in self._shares.items()))

    def of_batches(
        self, batches: Sequence[tuple[str, int]], totals: Mapping[str, int]
    ) -> Callable[[int, float], None]:
        """Return what is told the place of a batch, and the share of it that is done.

        Args:
            batches: That are to be done: key of the attack, and number of images.
            totals: How many images each attack takes, those of batches that are done before included.
        """
        done = dict(totals)
        for key, images in batches:
            done[key] -= images
        shares = [0.0] * len(batches)

        def tell(place: int, share: float) -> None:
            key = batches[place][0]
            shares[place] = share
            now = sum(
                share * images for share, (of, images) in zip(shares, batches, strict=True) if of == key
            )
            self.tell(key, (done[key] + now) / totals[key])

        return tell

    def finished(self, one: PlannedAttack) -> None:
        """An attack is done."""
        self.tell(one.key, 1.0)

    def verdict(self, share: float) -> None:
        """Of the verdict, this share is done."""
        if self._progress is not None:
            self._progress("masking verdict", self._share + share * (1 - self._share))
