"""The commands put together, and the one place where an error becomes an exit code.

| what happened | standard error | exit code |
|---|---|---|
| an error that the user can mend (`OhmfoldError`, a wrong option) | `error: ...`, one line | 2 |
| Ctrl-C | `interrupted` | 130 |
| the reader of our output went away | nothing | 1, as Rich and click have it |
| a comparison found a difference | the table says which | 1 |
| anything else: a bug of ours | one line, the traceback with `--debug` | 1 |
"""

from __future__ import annotations

import os
import sys
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import OhmfoldError
from . import (
    analyze,
    attack,
    build,
    chips,
    compile,  # noqa: A004
    demo,
    doctor,
    export,
    hardware,
    inspect,
    paper,
    replay,
    report,
    run,
    train,
    verify,
)
from .quiet import calm_collector, calm_threads, quieten

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["app", "main"]

DEBUG = "OHMFOLD_DEBUG"
USER_ERROR, FAULT, INTERRUPTED, BROKEN_PIPE = 2, 1, 130, 1

# typer brings its own copy of click from 0.16 on; the class that all usage errors derive from is found
# through the name that both export.
_CLICK_ERRORS: tuple[type[Exception], ...] = tuple(
    kind
    for kind in typer.BadParameter.__mro__
    if issubclass(kind, Exception) and kind.__name__ == "ClickException"
)

app = typer.Typer(
    name="ohmfold",
    help=("Take PyTorch classifiers to limited-precision hardware, and know bit by bit what runs there."),
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@dataclass
class _Invocation:
    """What `main` needs to know of a call after its context is gone."""

    debug: bool


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"ohmfold {version('ohmfold')}")
        raise typer.Exit


@app.callback()
def _global_options(
    context: typer.Context,
    *,
    debug: Annotated[
        bool, typer.Option("--debug", envvar=DEBUG, help="Show tracebacks and what libraries print.")
    ] = False,
    version: Annotated[  # noqa: ARG001 - handled by its callback
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if isinstance(context.obj, _Invocation):
        context.obj.debug = debug
    calm_threads()
    if not debug:
        quieten()


app.command("demo")(demo.demo)
app.command("train")(train.train)
app.command("export")(export.export)
app.command("compile")(compile.compile_model)
app.command("inspect")(inspect.inspect)
app.command("run")(run.run)
app.command("attack")(attack.attack)
app.command("replay")(replay.replay)
app.command("analyze")(analyze.analyze)
app.command("paper")(paper.paper)
app.command("report")(report.report)
app.command("build")(build.build)
app.add_typer(hardware.app, name="hardware")
app.command("chips")(chips.chips)
app.command("verify")(verify.verify)
app.command("doctor")(doctor.doctor)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What follows the program's name; None for the process's own.

    Returns:
        The exit code (see the module's table).
    """
    if arguments is None:
        calm_collector()
    invocation = _Invocation(debug=bool(os.environ.get(DEBUG)))
    command = typer.main.get_command(app)
    try:
        given = sys.argv[1:] if arguments is None else list(arguments)
        code = command.main(given, prog_name="ohmfold", standalone_mode=False, obj=invocation)
        sys.stdout.flush()
    except _CLICK_ERRORS as error:
        return _usage_error(error)
    except OhmfoldError as error:
        return _failed(_one_line(error), USER_ERROR, debug=invocation.debug)
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except BrokenPipeError:
        return _broken_pipe()
    except MemoryError:
        return _failed(
            "out of memory; use fewer images or smaller batches", USER_ERROR, debug=invocation.debug
        )
    except Exception as error:  # noqa: BLE001 - the last line of defence: a bug becomes one readable line
        hint = "" if invocation.debug else f"; set {DEBUG}=1 and run it again to see the traceback"
        text = f"this is a bug in ohmfold: {type(error).__name__}: {_one_line(error)}{hint}"
        return _failed(text, FAULT, debug=invocation.debug)
    exit_code = code if isinstance(code, int) else 0
    return _interrupted() if exit_code == INTERRUPTED else exit_code


def _failed(text: str, code: int, *, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    sys.stderr.write(f"error: {text}\n")
    return code


def _interrupted() -> int:
    sys.stderr.write("interrupted\n")
    return INTERRUPTED


def _broken_pipe() -> int:
    """Give standard output somewhere to go, or the interpreter complains when it flushes it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE


def _usage_error(error: Exception) -> int:
    """Print a wrong option or argument as one line, with the command whose help explains it."""
    context = getattr(error, "ctx", None)
    message = getattr(error, "format_message", error.__str__)()
    if not message.strip():  # a command without arguments: the help has been printed
        return USER_ERROR
    command = context.command_path if context is not None else "ohmfold"
    sys.stderr.write(f"error: {' '.join(message.split()).rstrip('.')}; see {command} --help\n")
    return USER_ERROR


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
