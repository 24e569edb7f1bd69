"""docs/verify.md says what the code does: its commands run, its Python runs, its witnesses exist."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import verified

import ohmfold
from ohmfold.models.datasets import resolve_dataset
from ohmfold.toolchain.cli import main
from ohmfold.toolchain.verify import REFERENCE_IMAGES, SLOW_IMAGES, witnesses_of

ROOT = Path(ohmfold.__file__).resolve().parent
PAGE = (ROOT / "docs/verify.md").read_text(encoding="utf-8")
# What keeps the page's commands short; the same options given twice count as the last.
FEW = ("--count", "8", "--emulated-images", "1", "--reference-images", "4")


@pytest.mark.slow
def test_the_commands_run_as_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OHMFOLD_DATA", raising=False)
    commands = re.findall(r"^    ohmfold (.+)$", PAGE, re.MULTILINE)
    assert len(commands) == 5
    for command in commands:
        words = shlex.split(command)
        if words[0] == "verify":
            words += [*FEW, *(() if "--witness" in words else ("--witness", "emulator"))]
        assert main(words) == 0, (command, capsys.readouterr().err)
    assert (tmp_path / "verify.xml").is_file()


@pytest.mark.slow
def test_the_python_example_passes_under_pytest_once_its_baseline_is_written(tmp_path):
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL).group(1)
    (tmp_path / "test_digits.py").write_text(code)
    data = resolve_dataset("mnist-sample").subset(40, 0)
    np.savez(tmp_path / "data.npz", images=data.images, labels=data.labels)
    (tmp_path / "conftest.py").write_text(
        "import numpy as np, pytest\nDATA = np.load('data.npz')\n\n"
        "@pytest.fixture\ndef images():\n    return DATA['images']\n\n"
        "@pytest.fixture\ndef labels():\n    return DATA['labels']\n"
    )
    ohmfold.compile(_module(), data.images).save(tmp_path / "digits.onnx")

    def run(**environment):
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"],
            cwd=tmp_path, env={**os.environ, **environment}, capture_output=True, text=True, check=False,
        )  # fmt: skip

    missing = run(OHMFOLD_UPDATE_BASELINES="")
    assert missing.returncode == 1
    assert "there is no baseline accuracy.json" in missing.stdout
    assert run(OHMFOLD_UPDATE_BASELINES="1").returncode == 0
    assert run(OHMFOLD_UPDATE_BASELINES="").returncode == 0


def _module():
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 2, 5, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(72, 10)).eval()


def test_the_table_names_the_witnesses_that_there_are():
    named = set(re.findall(r'^\| `"?([^`"-]+)"?` \|', PAGE, re.MULTILINE))
    assert named == {one.group for one in witnesses_of(verified.artifact())}


def test_the_numbers_are_the_defaults():
    assert f"`--reference-images` ({REFERENCE_IMAGES})" in PAGE
    assert f"`--emulated-images` ({SLOW_IMAGES})" in PAGE


def test_the_files_that_it_names_exist():
    files = re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py)`", PAGE)
    assert files
    assert all((ROOT / file).is_file() for file in files)
