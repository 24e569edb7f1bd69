"""An emulator that several Python threads and forked children use at once."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ohmfold.models.checkpoints import load_model
from ohmfold.toolchain.compiler import compile as compile_model
from ohmfold.toolchain.emulator import Emulator


@pytest.fixture(scope="module")
def artifact():
    images = np.random.default_rng(0).integers(0, 256, (64, 1, 28, 28)).astype(np.uint8)
    return compile_model(load_model("mnist-cnn"), images)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 256, (150, 1, 28, 28)).astype(np.uint8)


def test_eight_threads_share_one_emulator(artifact, images):
    emulator = Emulator(artifact, threads=2)
    wanted = Emulator(artifact, threads=1)(images)

    def use(seed):
        rng = np.random.default_rng(seed)
        for _ in range(6):
            first, last = np.sort(rng.integers(0, len(images) + 1, 2))
            if not np.array_equal(emulator(images[first:last]), wanted[first:last]):
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(8)))


FORKS = """
import os, sys, threading
import numpy as np
from ohmfold.toolchain.emulator import Emulator
emulator = Emulator(sys.argv[1], threads=2)
images = np.random.default_rng(1).integers(0, 256, (150, 1, 28, 28)).astype(np.uint8)
wanted = emulator(images)
stop = threading.Event()
wrong = []

def use():
    while not stop.is_set():
        if not np.array_equal(emulator(images), wanted):
            wrong.append(1)

threads = [threading.Thread(target=use) for _ in range(4)]
for thread in threads:
    thread.start()
children = []
for _ in range(4):
    child = os.fork()
    if child == 0:
        equal = all(np.array_equal(emulator(images), wanted) for _ in range(3))
        os._exit(0 if equal else 1)
    children.append(child)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
stop.set()
for thread in threads:
    thread.join()
print(*codes, len(wrong))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_children_forked_while_threads_run_have_an_emulator_of_their_own(artifact, tmp_path):
    artifact.save(tmp_path / "net.onnx")
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKS, str(tmp_path / "net.onnx")]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert found.stdout.split() == ["0"] * 5


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("isa", ["amx-model", "vnni", "avx2", "portable"])
def test_batches_threads_and_instruction_sets_change_no_bit(artifact, images, threads, isa):
    from ohmfold.kernels.isa import available

    if isa not in (*available(), "amx-model"):
        pytest.skip(f"this machine has no {isa}")
    wanted = Emulator(artifact, threads=1, isa="portable").codes(images[:60])
    emulator = Emulator(artifact, threads=threads, isa=isa)
    assert np.array_equal(emulator.codes(images[:60]), wanted)
    for cut in (1, 7, 59):
        parts = [emulator.codes(images[:cut]), emulator.codes(images[cut:60])]
        assert np.array_equal(np.concatenate(parts), wanted)
