"""What a witness is: something that runs a program in its own way and shows tensors under the program's names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

__all__ = ["EVERY_TENSOR", "FAST", "LOGITS", "POW2_ONLY", "REFERENCE_PACE", "SLOW", "Witness"]

EVERY_TENSOR = "every tensor it shows"
LOGITS = "the outputs"
POW2_ONLY = "every tensor it shows, of power-of-two artifacts"

FAST, REFERENCE_PACE, SLOW = "fast", "reference", "slow"
"""How many images a witness runs: all, as many as the int64 NumPy reference, or a few."""


class Witness(ABC):
    """One way of running the program that is verified.

    Attributes:
        group: What kind it is, such as "onnxruntime"; `--witness` takes it.
        name: Which of them, unique.
        promise: What is to be equal, bit for bit.
        pace: `FAST`, `REFERENCE_PACE` or `SLOW`.
    """

    group: str
    name: str
    promise: str = EVERY_TENSOR
    pace: str = FAST

    def unavailable(self) -> str | None:
        """Why it cannot run here or promises nothing of this program; None where it can and does.

        Raises:
            OhmfoldError: It should be able to run, and is not.
        """
        return None

    @abstractmethod
    def run(self, images: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """Tensors by their names in the program.

        Args:
            images: uint8 pixel codes `(N, ...)`.

        Raises:
            OhmfoldError: It cannot run what it should.
        """

    def must_show(self, names: Collection[str]) -> Collection[str]:
        """Which of these tensors it has to return; what else it returns is compared as well."""
        return names

    def close(self) -> None:
        """Give back what it holds outside this process; it may be asked again."""
        return

    @property
    def not_computed(self) -> Mapping[str, str]:
        """Tensors that it has no means to compute, with the reason."""
        return {}
