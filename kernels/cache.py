"""The on-disk cache of compiled kernels, salted with a hash of every kernel source.

Numba keys its cache on the source file of the compiled function alone: a kernel that calls an edited helper
in another module is loaded as it was. Here the cache folder's name carries a hash of all files of this
package, so that any edit compiles afresh. Only functions decorated with `kernel` are affected; the process's
Numba settings are left as they are.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import pickle
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numba
from numba.core import caching, config
from numba.core.runtime.nrt import rtsys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["cache_folder", "kernel", "source_hash"]

logger = logging.getLogger(__name__)

F = TypeVar("F", bound="Callable[..., Any]")


@functools.cache
def source_hash() -> str:
    """SHA-256 over the names and contents of this package's Python files, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _user_cache() -> Path:
    """The user's cache folder by the custom of the platform."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


@functools.cache
def cache_folder() -> Path | None:
    """The folder of compiled kernels, made if need be; None (and a logged warning) if it cannot be written.

    It lies under `NUMBA_CACHE_DIR` where that is set, else under the user's cache folder.
    """
    try:
        chosen = getattr(config, "CACHE_DIR", "")
        root = Path(chosen) if chosen else _user_cache()
        folder = root / "ohmfold" / f"kernels-{source_hash()}"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        logger.warning(
            "compiled kernels are not kept between runs (set NUMBA_CACHE_DIR to keep them): %s", error
        )
        return None
    return folder


class _SaltedLocator(caching._CacheLocator):  # noqa: SLF001 - Numba's extension point
    """Places a function's compiled code in `cache_folder()`, fresh as long as no kernel source changes."""

    def __init__(self, py_func: Any, folder: Path) -> None:
        code = py_func.__code__
        self._py_file = code.co_filename
        self._name = f"{Path(code.co_filename).stem}-{code.co_firstlineno}"
        self._folder = folder

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> str:
        return source_hash()

    def get_disambiguator(self) -> str:
        return self._name

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> _SaltedLocator | None:  # noqa: ARG003
        folder = cache_folder()
        return None if folder is None else cls(py_func, folder)


class _SaltedImplementation(caching.CompileResultCacheImpl):
    """Numba's cache of compile results, in the salted folder whatever Numba's own settings are."""

    def __init__(self, py_func: Any) -> None:
        locator = _SaltedLocator.from_function(py_func, py_func.__code__.co_filename)
        if locator is None:
            raise RuntimeError("no folder for compiled kernels")
        self._lineno = py_func.__code__.co_firstlineno
        self._locator = locator
        fullname = f"{Path(py_func.__code__.co_filename).stem}.{py_func.__qualname__}"
        name: Any = self.get_filename_base
        self._filename_base = name(fullname, getattr(sys, "abiflags", ""))


class _SaltedCache(caching.Cache):
    """Numba's per-function cache; a cache that cannot be read or written costs a compilation, no more."""

    _impl_class: Any = _SaltedImplementation

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Load compiled code without what only compiling needs.

        Numba first imports every function that it can compile, and SciPy's linear algebra with them: 0.25 s. Code
        from the cache is complete; all it needs is the addresses of Numba's runtime. What is not in the cache is
        compiled, and for that Numba imports the rest itself.
        """
        rtsys.initialize(target_context)
        load: Any = self._load_overload
        with self._guard_against_spurious_io_errors():
            return load(sig, target_context)
        return None

    @contextmanager
    def _guard_against_spurious_io_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
            logger.warning("the cache of compiled kernels failed; compiling instead: %s", error)


def kernel(function: F) -> F:
    """Compile `function` with Numba on its first call: serial, without the GIL, cached on disk.

    Fast-math stays off and nothing is contracted: float32 results are single IEEE operations.
    """
    dispatcher: Any = numba.njit(nogil=True)(function)
    if cache_folder() is not None:
        cache_class: Any = _SaltedCache
        dispatcher._cache = cache_class(function)  # noqa: SLF001 - what enable_caching() sets
    return cast("F", dispatcher)
