"""The targets by name, their settings, and an output folder that is written whole or not at all."""

import threading
from pathlib import Path

import pytest
from target_nets import residual_artifact, some_images

from ohmfold.errors import OutputError, TargetError, UnsupportedError
from ohmfold.toolchain.hardware import load_hardware
from ohmfold.toolchain.targets import (
    Material,
    Options,
    Target,
    base,
    check_new_folder,
    find_target,
    target_names,
    write_folder,
)

FILES = {"a.txt": b"one", "deep/er/b.bin": b"\0two", "c.txt": b""}


def left_in(folder: Path):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("exists", [False, True])
def test_files_appear_in_a_new_or_empty_folder(exists, tmp_path) -> None:
    out = tmp_path / "out"
    if exists:
        out.mkdir()
    write_folder(out, FILES)
    assert {name: (out / name).read_bytes() for name in FILES} == FILES
    assert left_in(tmp_path) == sorted(f"out/{name}" for name in FILES)
    assert out.stat().st_mode & 0o777 == 0o755


def test_a_relative_folder_is_one_of_the_working_directory(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(Path("out"), FILES)
    assert (tmp_path / "out" / "a.txt").read_bytes() == b"one"


def test_a_folder_that_is_not_empty_is_refused_and_stays_as_it_was(tmp_path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    for action in (lambda: check_new_folder(tmp_path / "out"), lambda: write_folder(tmp_path / "out", FILES)):
        with pytest.raises(OutputError, match="is not empty; choose a new or empty folder"):
            action()
    assert left_in(tmp_path) == ["out/mine"]


def test_a_file_a_link_and_a_missing_parent_are_refused(tmp_path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    for name in ("file", "link"):
        with pytest.raises(OutputError, match="is a file or a link"):
            write_folder(tmp_path / name, FILES)
    with pytest.raises(OutputError, match="is not a folder that can be written to"):
        write_folder(tmp_path / "none" / "out", FILES)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("after", [0, 1, 2])
def test_nothing_is_left_when_writing_fails_or_is_interrupted_in_the_middle(
    error, after, tmp_path, monkeypatch
) -> None:
    write, done = base._write, []

    def failing(path, content):
        if len(done) == after:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content[:1])
            raise error
        done.append(path)
        write(path, content)

    monkeypatch.setattr(base, "_write", failing)
    expected = OutputError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        write_folder(tmp_path / "out", FILES)
    assert len(done) == after
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_somebody_fills_meanwhile_keeps_what_they_wrote(tmp_path, monkeypatch) -> None:
    write = base._write

    def slow(path, content):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / "theirs").write_text("kept")
        write(path, content)

    monkeypatch.setattr(base, "_write", slow)
    with pytest.raises(OutputError, match="cannot write"):
        write_folder(tmp_path / "out", FILES)
    assert left_in(tmp_path) == ["out/theirs"]


def test_of_two_writers_one_wins_whole(tmp_path) -> None:
    results = []

    def writer(letter):
        try:
            write_folder(tmp_path / "out", {f"{i}.txt": letter * 1000 for i in range(20)})
            results.append(letter)
        except OutputError:
            pass

    threads = [threading.Thread(target=writer, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 1
    assert {path.read_bytes() for path in (tmp_path / "out").iterdir()} == {results[0] * 1000}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["../out", "/etc/x", "a/../../b", "", "a\\b", "a\0b"])
def test_names_that_lead_out_of_the_folder_are_refused(name, tmp_path) -> None:
    with pytest.raises(ValueError, match="is not the name of a file in the folder"):
        write_folder(tmp_path / "out", {name: b""})
    assert list(tmp_path.iterdir()) == []


def test_targets_are_found_by_name_and_say_what_they_are() -> None:
    assert target_names() == ("c99", "crossbar", "packed", "qdq", "qonnx")
    for name in target_names():
        target = find_target(name)
        assert isinstance(target, Target)
        assert target.name == name
        assert target.description
        assert "\n" not in target.description
        assert issubclass(target.options, Options)


def test_an_unknown_target_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        TargetError, match="no target 'qnnx', the nearest is 'qonnx'; expected one of c99, crossbar"
    ):
        find_target("qnnx")


@pytest.mark.parametrize("name", ["c99", "crossbar", "packed", "qdq", "qonnx"])
def test_unknown_settings_are_refused(name) -> None:
    with pytest.raises(TargetError, match="colour: not an option of this target"):
        find_target(name).options(colour="red", **({"hardware": _ideal()} if name == "crossbar" else {}))


def test_settings_are_strict_and_frozen() -> None:
    kind = find_target("c99").options
    for wrong in ({"ram": "12"}, {"ram": 0}, {"ram": True}, {"integer_only": 1}, {"vectors": 0}):
        with pytest.raises(TargetError, match=next(iter(wrong))):
            kind(**wrong)
    with pytest.raises(TargetError, match="hardware: this target needs it, found none"):
        find_target("crossbar").options()
    with pytest.raises(ValueError, match="frozen"):
        kind().ram = 3


def _ideal():
    return load_hardware("ideal")


def test_a_c_name_that_is_no_identifier_is_refused_before_anything_is_built() -> None:
    target = find_target("c99")
    for name in ("1net", "my-net", "a b", "", "nét", "while"):
        with pytest.raises(TargetError, match="name"):
            target.check(residual_artifact(), target.options(name=name))


def test_the_c_library_keeps_to_limits_or_says_what_takes_the_room() -> None:
    target, artifact = find_target("c99"), residual_artifact()
    built = target.build(artifact, target.options(name="net", vectors=2), Material(images=some_images(5)))
    assert {"net.h", "net.c", "Makefile", "CMakeLists.txt"} <= set(built.files)
    assert all(isinstance(content, bytes) for content in built.files.values())
    size = built.summary["size"]
    assert (
        target.build(artifact, target.options(name="net", ram=size["ram"])).summary["size"]["ram"]
        == size["ram"]
    )
    for what in ("ram", "rom"):
        with pytest.raises(TargetError, match=f"bytes of {what.upper()}"):
            target.build(artifact, target.options(**{what: size[what] - 1}))
    with pytest.raises(UnsupportedError, match="multipliers are not powers of two"):
        target.build(artifact, target.options(integer_only=True))
