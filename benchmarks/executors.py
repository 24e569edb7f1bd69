"""onnxruntime at its best, for the side-by-side figures: all graph optimisations, input and output bound once.

Binding was tried against `session.run`: at batch 1 of the MNIST CNN it takes 0.138 ms instead of 0.144 ms, at batch
256 both take 26.6 ms. Fixing the free batch dimension changes nothing.

Several threads of onnxruntime spin while they wait for work, by default also between two runs, and for longer than
0.1 s: what is timed next would have to share its cores with them. That is switched off (it costs onnxruntime
nothing). Within a run, spinning is faster on an idle machine and slower by half on a busy one: both are timed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from ohmfold.toolchain.cli.quiet import import_onnxruntime

from .dense_as_qgemm import dense_as_qgemm

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ohmfold.toolchain.artifact import Artifact

__all__ = ["ARTIFACT", "QGEMM", "SLEEPING", "BoundSession", "onnxruntime_sessions"]

ARTIFACT, QGEMM, SLEEPING = "artifact", "QGemm", "sleeping"


class BoundSession:
    """An onnxruntime session on the CPU whose input and output are bound to arrays.

    Args:
        model: Serialised model of one input and float32 logits `(N, classes)`.
        images: The input.
        classes: Number of logits.
        threads: Intra-op threads.
        spinning: Whether they spin while they wait, during a run.

    Attributes:
        logits: Where a call writes.
    """

    def __init__(
        self, model: bytes, images: NDArray[Any], classes: int, threads: int, *, spinning: bool = True
    ) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._images = images  # the binding holds its address only
        self.logits = np.zeros((len(images), classes), np.float32)
        self._binding = self._session.io_binding()
        self._binding.bind_cpu_input(self._session.get_inputs()[0].name, images)
        self._binding.bind_output(
            self._session.get_outputs()[0].name,
            "cpu",
            0,
            np.float32,
            self.logits.shape,
            self.logits.ctypes.data,
        )

    def __call__(self) -> NDArray[np.float32]:
        """Run once and return the logits, in the same array every time."""
        self._session.run_with_iobinding(self._binding)
        return self.logits


def onnxruntime_sessions(
    artifact: Artifact, images: NDArray[Any], logits: NDArray[np.float32], threads: int
) -> dict[str, BoundSession]:
    """The artifact in onnxruntime, and the same network with its dense layers as QGemm, where it has any.

    Of more than one thread, each of them twice: with threads that spin and with threads that sleep.

    Raises:
        SystemExit: The artifact's logits are not these, to the bit, or the other network's classes are not.
    """
    import_onnxruntime()
    models = {ARTIFACT: artifact.to_bytes()}
    fused, layers = dense_as_qgemm(artifact.model)
    if layers:
        models[QGEMM] = ir.to_proto(fused).SerializeToString()
    sessions = {}
    for spinning in (True, False)[: min(threads, 2)]:
        for name, model in models.items():
            session = BoundSession(model, images, logits.shape[1], threads, spinning=spinning)
            _check(name, session(), logits)
            sessions[name if spinning else f"{name}, {SLEEPING}"] = session
    return sessions


def _check(name: str, found: NDArray[np.float32], logits: NDArray[np.float32]) -> None:
    if name == ARTIFACT and not np.array_equal(found, logits):
        raise SystemExit("error: the emulator's logits are not onnxruntime's; nothing is timed")
    if not np.array_equal(found.argmax(1), logits.argmax(1)):
        raise SystemExit("error: with QGemm, onnxruntime's classes are not the emulator's; nothing is timed")
