"""The command line: one command a file, and the only place that prints."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from typing import Any, NoReturn

import typer
from typer.exceptions import TyperException

from lisabench import __version__
from lisabench.cli import compare, env, merge, new, ops, report, scale, train_small, tune, verify
from lisabench.errors import LisaBenchError

app = typer.Typer(
    name="lisabench",
    help="Measures attention operators: how latency, memory and FLOPs grow with tokens, resolution and batch, on GPUs and CPUs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("scale")(scale.scale)
app.command("train-small")(train_small.train_small)
app.command("report")(report.report)
app.command("compare")(compare.compare)
app.command("merge")(merge.merge)
app.command("ops")(ops.ops)
app.command("verify")(verify.verify)
app.command("new")(new.new)
app.command("env")(env.env)
app.command("tune")(tune.tune)

BROKEN_PIPE = 141
SIGNALS = (signal.SIGINT, signal.SIGTERM)
_stopped: list[int] = []


class StoppedError(BaseException):
    """Ctrl-C or SIGTERM: what runs is ended in good order. No KeyboardInterrupt, which typer would swallow with its notes."""

    def __init__(self, number: int) -> None:
        self.exit_code = 128 + number


def _version(wanted: bool) -> None:
    if wanted:
        print(f"lisabench {__version__}")
        raise typer.Exit


@app.callback()
def _top(version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version and stop.")) -> None:
    """Every command has its own --help."""


def main() -> NoReturn:
    """Runs the program; every failure of a user's making is one line on stderr and an exit code."""
    for number in SIGNALS:
        signal.signal(number, _stop)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ± and µ
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
        if _stopped:  # the exception was lost where Python ignores exceptions
            raise StoppedError(_stopped[0])
        sys.exit(code if isinstance(code, int) else 0)
    except LisaBenchError as error:
        _fail(str(error), error.exit_code)
    except TyperException as error:
        if not str(error):  # the bare program: its help was printed
            sys.exit(2)
        _fail(_usage(error), 2)
    except StoppedError as stop:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        for note in getattr(stop, "__notes__", ["stopped"]):  # what a command says is kept, and how to go on
            print(note, file=sys.stderr)
        sys.exit(stop.exit_code)
    except BrokenPipeError:
        # Whoever read stdout is gone (`| head`): nothing more can be said there, and Python must not try at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BROKEN_PIPE)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.EBADF, errno.EIO):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        _fail(f"the output cannot be written ({error.strerror}); make room or send it elsewhere", 4)


def _stop(number: int, _: object) -> NoReturn:
    _stopped.append(number)
    raise StoppedError(number)


def _fail(message: str, code: int) -> NoReturn:
    print(f"Error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def _usage(error: Any) -> str:
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else "lisabench"
    text = error.format_message() if hasattr(error, "format_message") else str(error)
    return f"{text.rstrip('.')}; see `{where} --help`"
