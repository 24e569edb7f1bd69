"""Machines that are not as they should be: full disks, no home, odd environments, strange names, two at once.

Each ends in success, or in exit code 2 and one line; and nothing half-written stays under a result's name.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from .conftest import write_images

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAME = "ä b ü\N{SNOWMAN}"


def ohmfold(
    *arguments: object, prepare: Callable[[], None] | None = None, **environment: str | None
) -> subprocess.CompletedProcess[str]:
    """Run the command in a process; a variable that is None is taken out of its environment."""
    variables = {key: value for key, value in {**os.environ, **environment}.items() if value is not None}
    return subprocess.run(
        [sys.executable, "-m", "ohmfold", *map(str, arguments)],
        capture_output=True, text=True, errors="backslashreplace", check=False, env=variables, timeout=120,
        preexec_fn=prepare,
    )  # fmt: skip


def assert_one_line(done: subprocess.CompletedProcess[str], mentions: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert mentions in done.stderr


def almost_full() -> None:
    """Let no file grow past 2,000 bytes: writing fails as it does on a full disk, at some byte in the middle."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))


FULL = {
    "compile": "compile {model} --out {out}/a.onnx --data {data} --calibration-images 30",
    "build": "build {artifact} --target c99 --out {out}/c",
    "train": "train --model mnist-vgg --data {digits} --epochs 1 --out {out}/w.safetensors",
    "train with checkpoints": (
        "train --model mnist-vgg --data {digits} --epochs 1 --out {out}/w.safetensors --checkpoints {out}/state"
    ),
    "predictions": "run {artifact} --data {many} --out {out}/p.npz",
}


@pytest.mark.parametrize("case", FULL)
def test_a_full_disk_is_one_line_and_leaves_no_half_file(case: str, files, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    places = {**files._asdict(), "out": out, "digits": write_images(tmp_path / "digits.npz", 8, side=28)}
    places["many"] = write_images(tmp_path / "many.npz", 6000)
    done = ohmfold(
        *FULL[case].format(**places).split(),
        prepare=almost_full, NUMBA_CACHE_DIR=str(tmp_path / "kernels"), MPLCONFIGDIR=str(tmp_path / "plots"),
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")  # before it, that kernels are not kept
    assert "File too large" in done.stderr
    assert [path for path in out.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("threads", ["", "0", "abc", "-1", "1000000"])
def test_an_odd_number_of_threads_changes_no_result(threads: str, files) -> None:
    usual = ohmfold("run", files.artifact, "--data", files.data, "--json")
    odd = ohmfold("run", files.artifact, "--data", files.data, "--json", OMP_NUM_THREADS=threads)
    assert odd.returncode == 0, odd.stderr
    assert '"correct"' in odd.stdout
    assert [line for line in odd.stdout.splitlines() if '"correct"' in line] == [
        line for line in usual.stdout.splitlines() if '"correct"' in line
    ]


@pytest.mark.parametrize("locale", ["C", "POSIX"])
def test_a_locale_without_utf8_can_say_everything(locale: str, files, tmp_path: Path) -> None:
    plain = {
        "LC_ALL": locale,
        "LANG": locale,
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONUTF8": "0",
        "PYTHONIOENCODING": None,
    }
    for command in (
        ["inspect", files.artifact],
        ["run", files.artifact, "--data", files.data],
        ["--help"],
        ["doctor"],
    ):
        done = ohmfold(*command, **plain)
        assert done.returncode == 0, done.stderr
    folder = tmp_path / NAME
    folder.mkdir()
    (folder / "a.onnx").write_bytes(files.artifact.read_bytes())
    assert ohmfold("inspect", folder / "a.onnx", **plain).returncode == 0
    assert_one_line(ohmfold("inspect", folder / "none.onnx", **plain), "none.onnx: No such file or directory")


def test_names_with_spaces_and_other_letters_work_throughout(files, tmp_path: Path) -> None:
    folder = tmp_path / NAME
    folder.mkdir()
    model, data = folder / "mödel 1.onnx", folder / "bilder \N{SNOWMAN}.npz"
    model.write_bytes(files.model.read_bytes())
    data.write_bytes(files.data.read_bytes())
    artifact = folder / "mein artefakt.onnx"
    for command in (
        ["compile", model, "--out", artifact, "--data", data, "--calibration-images", 30],
        ["run", artifact, "--data", data, "--out", folder / "p q.npz"],
        ["build", artifact, "--target", "packed", "--out", folder / "b c"],
    ):
        done = ohmfold(*command)
        assert done.returncode == 0 or "holds no weights that packing" in done.stderr, done.stderr
    with np.load(folder / "p q.npz") as saved:
        assert len(saved["labels"])


@pytest.mark.parametrize(
    "places",
    [
        {"HOME": None, "XDG_CACHE_HOME": None, "NUMBA_CACHE_DIR": None},
        {"HOME": "/proc/none", "XDG_CACHE_HOME": None, "NUMBA_CACHE_DIR": None},
        {"HOME": "/proc/none", "XDG_CACHE_HOME": "/dev/null/cache", "NUMBA_CACHE_DIR": None},
    ],
    ids=["no home", "a home that cannot be written", "no place for a cache"],
)
def test_without_a_home_or_a_cache_everything_is_computed_anew(places: dict[str, str | None], files) -> None:
    done = ohmfold("run", files.artifact, "--data", files.data, **places)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") <= 1  # that kernels are not kept


def test_two_processes_that_write_one_file_leave_one_whole_file(files, tmp_path: Path) -> None:
    out = tmp_path / "a.onnx"
    command = ["compile", files.model, "--out", out, "--data", files.data, "--calibration-images", 30]
    both = [
        subprocess.Popen([sys.executable, "-m", "ohmfold", *map(str, command)], stdout=subprocess.DEVNULL)
        for _ in range(2)
    ]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert out.read_bytes() == files.artifact.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]
