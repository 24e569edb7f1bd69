"""Instructions of one inference of a generated C library: by valgrind on this processor, by qemu on a Cortex-M.

Both count whole runs of two lengths and take the difference, so that starting and printing cost nothing.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

from ohmfold.errors import TargetError
from ohmfold.toolchain.targets.c99.harness import build, write_sources

if TYPE_CHECKING:
    from pathlib import Path

    from ohmfold.toolchain.targets.c99 import C99Library
    from ohmfold.toolchain.targets.c99.harness import Compiler

__all__ = ["callgrind_instructions", "qemu_instructions"]

_HOST_MAIN = """
#include "{name}.h"
#include <stdlib.h>
static uint8_t pixels[{NAME}_PIXELS];
int main(int argc, char **argv)
{{
    float logits[{NAME}_LOGITS];
    long runs = argc > 1 ? strtol(argv[1], NULL, 10) : 0, i;
    for (i = 0; i < {NAME}_PIXELS; i++) {{
        pixels[i] = (uint8_t)(i * 37);
    }}
    for (i = 0; i < runs; i++) {{
        {name}_run(pixels, logits);
    }}
    return 0;
}}
"""

# A CMSDK timer of the MPS2 boards counts down at 25 MHz; with -icount shift=0 an instruction takes one nanosecond.
_NANOSECONDS_PER_TICK = 40
_BOARD_MAIN = """
#include "{name}.h"
#include <stdio.h>
#define TIMER ((volatile uint32_t *)0x40000000u)
static uint8_t pixels[{NAME}_PIXELS];
int main(void)
{{
    float logits[{NAME}_LOGITS];
    uint32_t before, after;
    int32_t i;
    for (i = 0; i < {NAME}_PIXELS; i++) {{
        pixels[i] = (uint8_t)(i * 37);
    }}
    TIMER[2] = 0xffffffffu;
    TIMER[1] = 0xffffffffu;
    TIMER[0] = 1u;
    before = TIMER[1];
    {name}_run(pixels, logits);
    after = TIMER[1];
    printf("%lu\\n", (unsigned long)(before - after));
    return 0;
}}
"""


def _main(library: C99Library, text: str, folder: Path) -> str:
    (folder / "counted.c").write_text(
        text.format(name=library.name, NAME=library.name.upper()), encoding="ascii"
    )
    return "counted.c"


def callgrind_instructions(
    library: C99Library, compiler: Compiler, flags: tuple[str, ...], folder: Path
) -> int | None:
    """Instructions of one inference on this processor; None where valgrind is not here.

    Args:
        library: What is counted.
        compiler: A native one.
        flags: The optimisation.
        folder: Where it is built.

    Raises:
        TargetError: It cannot be built or counted.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        return None
    write_sources(library, folder)
    program = build(library, compiler, folder, _main(library, _HOST_MAIN, folder), flags)
    totals = []
    for runs in (1, 2):
        command = [valgrind, "--tool=callgrind", "--callgrind-out-file=/dev/null", str(program), str(runs)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = re.search(r"Collected\s*:\s*(\d+)", done.stderr)
        if done.returncode or found is None:
            raise TargetError(f"valgrind cannot count {library.name}: {done.stderr.strip()[-300:]}")
        totals.append(int(found[1]))
    return totals[1] - totals[0]


def qemu_instructions(library: C99Library, compiler: Compiler, flags: tuple[str, ...], folder: Path) -> int:
    """Instructions of one inference on a board that qemu emulates, to 40 instructions.

    Args:
        library: What is counted.
        compiler: One of bare-metal images.
        flags: The optimisation.
        folder: Where it is built.

    Raises:
        TargetError: It cannot be built or counted.
    """
    write_sources(library, folder)
    program = build(library, compiler, folder, _main(library, _BOARD_MAIN, folder), flags)
    command = [compiler.runner[0], "-icount", "shift=0", *compiler.runner[1:], str(program)]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode or not done.stdout.strip().isdecimal():
        raise TargetError(
            f"{compiler.name} cannot count {library.name}: {(done.stdout + done.stderr)[-300:]}"
        )
    return int(done.stdout) * _NANOSECONDS_PER_TICK
