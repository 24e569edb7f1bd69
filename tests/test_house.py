"""The house: imports run one way, `import ohmfold` is cheap, every error is ours."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ohmfold
from ohmfold import errors

ROOT = Path(ohmfold.__file__).resolve().parent
MAY_IMPORT = {
    "export": {"export"},
    "kernels": {"kernels"},
    "models": {"models"},
    "toolchain": {"export", "kernels", "models", "toolchain"},
}
FOREIGN = {
    "kernels": {"onnx", "onnx_ir", "onnxruntime", "torch"},
    "models": {"onnx", "onnx_ir", "onnxruntime"},
}


def modules():
    return [path for room in MAY_IMPORT for path in sorted((ROOT / room).rglob("*.py"))]


def imported(path):
    """Yield (absolute dotted name, is relative) of everything that a module imports."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    package = parts if path.name == "__init__.py" else parts[:-1]
    package = package[:-1] if path.name == "__init__.py" else package
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, False
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                yield node.module or "", False
            else:
                base = package[: len(package) - node.level + 1]
                names = [node.module] if node.module else [alias.name for alias in node.names]
                for name in names:
                    yield ".".join((*base, *(name or "").split("."))), True


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path):
    room = path.relative_to(ROOT).parts[0]
    for name, relative in imported(path):
        top = name.split(".")[0]
        if relative:
            assert top == "errors" or top in MAY_IMPORT[room], f"{room} imports {name}"
        else:
            assert top != "ohmfold", f"imports inside the folders are relative: {name}"
            assert top not in FOREIGN.get(room, set()), f"{room} imports {name}"


def test_every_module_says_why_it_exists():
    silent = [p for p in modules() if not ast.get_docstring(ast.parse(p.read_text(encoding="utf-8")))]
    assert silent == []


def test_every_error_derives_from_the_one():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert len(kinds) > 5
    assert all(issubclass(kind, errors.OhmfoldError) for kind in kinds)


def test_importing_ohmfold_loads_nothing_heavy():
    code = (
        "import sys, ohmfold; ohmfold.errors;"
        "print([m for m in ('torch', 'onnx', 'onnxruntime', 'numba', 'numpy', 'matplotlib') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ohmfold.__all__)
def test_public_names_can_be_had(name):
    assert getattr(ohmfold, name).__module__.startswith("ohmfold.")


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        ohmfold.nothing  # noqa: B018
