"""Studies and campaigns that any crew can run, and their processes to kill."""

from __future__ import annotations

import os
import signal

from campaigns import plan, suite, target
from tiny_artifacts import tiny_artifact, tiny_data

from ohmfold.toolchain.attacks.campaign import run_campaign
from ohmfold.toolchain.chip_folder import FinishedChips
from ohmfold.toolchain.chips import study
from ohmfold.toolchain.hardware import load_hardware, parse_sweep

ARTIFACT = tiny_artifact()
CHIP = load_hardware("ideal").with_changes(
    {
        "cell.fraction_bits": 6,
        "cell.programming.kind": "absolute",
        "cell.programming.sigma": 1.5,
        "read.noise": 1.0,
        "adc.bits": 4,
        "adc.range": "calibrated",
    }
)
SUITES = (
    suite({"attack": "uniform-noise"}, {"attack": "pgd", "settings": {"steps": 4}}, name="plain"),
    suite(
        {"attack": "fgsm"},
        {"attack": "square", "settings": {"budget": 20}},
        {"attack": "adaptive-pgd", "settings": {"steps": 5, "restarts": 1}},
        name="line",
        cascade=True,
    ),
)


def studied(folder, crew=None, progress=None):
    """A study of eight chips, and its lines."""
    found = study(
        ARTIFACT, CHIP, tiny_data(ARTIFACT), count=4, sweep=parse_sweep("read.noise=0,2"),
        calibration=tiny_data(ARTIFACT, 20, seed=8), crew=crew, finished=FinishedChips(folder), progress=progress,
    )  # fmt: skip
    return found, (folder / "chips.jsonl").read_bytes()


def attacked(crew=None, progress=None, state=None, **given):
    """A campaign of attacks alone and in line, everything that it found, times aside."""
    goal = target(wrong=(2,), batch=9, **given)
    campaign = run_campaign(
        goal, plan(goal, *SUITES, ladder=(30,)), crew=crew, progress=progress, state=state
    )
    figures = campaign.result.model_dump(mode="json", exclude={"seconds"})
    return figures, [
        (r.adversarial.tobytes(), r.predictions.tobytes(), None if r.margins is None else r.margins.tobytes())
        for r in campaign.results
    ]


def processes(crew):
    """The process ids of a crew's workers."""
    hands = crew.hands
    if hasattr(hands, "client"):
        return list(hands.client.run(os.getpid).values())
    return [pid for executor in hands._executors.values() for pid in executor._processes]


def killing(crew):
    """What kills one of a crew's processes when something is first done, and the list that it is then in."""
    killed = []

    def progress(_words, share):
        if share > 0 and not killed:
            killed.append(processes(crew)[0])
            os.kill(killed[0], signal.SIGKILL)

    return progress, killed
