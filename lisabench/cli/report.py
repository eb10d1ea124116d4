"""`lisabench report`: renders runs again: tables, fits, figures, a page; and bundles them."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lisabench.errors import InputError

if TYPE_CHECKING:
    from lisabench.render.outputs import Look
    from lisabench.results import Run

LARGE = 20_000_000  # bytes
VENUE, WIDTH, FORMATS, JOINED = "cvpr", "full", "pdf,png", "joined"


def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, or one bundle FILE.zip; several are joined.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="Where files go. [default: the run's folder; of several `joined` in the first; of a bundle FILE]")
    ] = None,
    venue: Annotated[str, typer.Option(help="Whose column widths and fonts figures have: cvpr, neurips, ieee, slides, ...")] = VENUE,
    width: Annotated[str, typer.Option(help="full or column.")] = WIDTH,
    formats: Annotated[str, typer.Option("--format", help="Of figures, a comma list: pdf, png, svg, pgf.")] = FORMATS,
    bundle: Annotated[
        Path | None, typer.Option(help="FILE.zip: the runs and all that is rendered, for a paper's supplement.", show_default=False)
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE,VALUE: only cells with these, such as dtype=bf16 or batch=1,8; repeatable.")
    ] = None,
    mix: Annotated[
        bool,
        typer.Option("--mix", help="Render all the same where machines with one kind of device differ in driver, torch or the like."),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Results only, no messages.")] = False,
) -> None:
    """Render runs: print tables and fits, write figures, LaTeX tables, a page and results.csv.

    Each kind of device has panels, tables and fits of its own, in one sweep over several and where several sweeps are joined. Runs of
    train-small are joined too; given with sweeps, accuracy is drawn against their latency.
    """
    from lisabench.bundle import SUFFIX, check_name, pack

    if bundle is not None:
        check_name(bundle)
    look = _look(venue, width, formats)
    paths, target = list(runs), out
    if any(path.suffix.lower() == SUFFIX and path.is_file() for path in paths):
        paths, target = _unpacked(paths, out)
    _prepare(paths)
    sweeps, trainings = _read(paths, where or [])
    # All runs are whole, and fit together, before the first is shown.
    for alone in sweeps:
        _one_machine([alone], mix=mix, quiet=quiet, apart=True)
    if len(sweeps) > 1:
        _one_machine(sweeps, mix=mix, quiet=quiet, apart=True)
    _one_machine(trainings, mix=mix, quiet=quiet)
    found = [*sweeps, *trainings]
    folder = target or (found[0].path if len(found) == 1 else paths[0] / JOINED)
    from lisabench.cli.written import tell
    from lisabench.render.drawing import SELDOM
    from lisabench.render.outputs import rendering

    gc.freeze()  # the records stay to the end: looking for garbage among them takes as long as all the rest
    gc.set_threshold(*SELDOM)
    with rendering(sweeps, trainings, folder, look=look, command=["lisabench", *sys.argv[1:]]) as finish:
        _print(sweeps, trainings)
        written = finish()
    if not quiet:
        tell(found, written, folder)
        _tell_join(sweeps, trainings, written.figures)
    if bundle is not None:
        pack(bundle, found, folder, written.files)
        if not quiet:
            _say(f"the bundle {bundle} has {bundle.stat().st_size / 2**20:.1f} MiB")


def _prepare(paths: Sequence[Path]) -> None:
    """While large journals are read, the processes that draw can begin."""
    from lisabench.journal import JOURNAL
    from lisabench.render import drawing

    sizes = [file.stat().st_size for path in paths if (file := path / JOURNAL).is_file()]
    if sum(sizes) > LARGE:
        drawing.prepare()


def _look(venue: str, width: str, formats: str) -> Look:
    from lisabench.render.outputs import Look
    from lisabench.render.page import check_formats
    from lisabench.render.venues import style_of

    wanted = tuple(dict.fromkeys(part.strip().lower() for part in formats.split(",") if part.strip()))
    check_formats(wanted)
    return Look(style=style_of(venue, width), formats=wanted)


def _unpacked(paths: Sequence[Path], out: Path | None) -> tuple[list[Path], Path]:
    """A bundle's runs, taken out into `out` or into a folder of its name beside it, and that folder."""
    from lisabench.bundle import unpack

    if len(paths) > 1:
        raise InputError(f"{len(paths)} arguments with a bundle among them; give the bundle alone, or take it out and give the runs in it")
    into = out or paths[0].with_suffix("")
    return unpack(paths[0], into), into


def _read(paths: Sequence[Path], where: Sequence[str]) -> tuple[list[Run], list[Run]]:
    """What is chosen of the sweeps and of the runs of trainings, each once."""
    from lisabench.journal import read_plan
    from lisabench.records import without_samples
    from lisabench.results import chosen, read_run

    once: dict[Path, Path] = {}
    for path in paths:
        once.setdefault(path.resolve(), path)
    kinds = {path: "accuracy" if read_plan(path)["kind"] == "accuracy" else "scale" for path in once.values()}
    found = {
        kind: [chosen(read_run(path, kind=kind, trimmed=without_samples), where) for path in kinds if kinds[path] == kind]
        for kind in ("scale", "accuracy")
    }
    return found["scale"], found["accuracy"]


def _print(sweeps: Sequence[Run], trainings: Sequence[Run]) -> None:
    from lisabench.cli import accuracy, session
    from lisabench.cli.console import lines, results

    for sweep in sweeps:
        if len(sweeps) > 1:
            lines(results(), f"{sweep.path}:", style="bold")
        session.print_run(sweep)
    if trainings:
        accuracy.print_runs(trainings)


def _tell_join(sweeps: Sequence[Run], trainings: Sequence[Run], figures: Sequence[Path]) -> None:
    if sweeps and trainings and not any(path.stem == "accuracy-sweep-latency" for path in figures):
        _say("accuracy is not drawn against the sweep's latency: no operator with the same options was trained and swept forward")


def _one_machine(runs: Sequence[Run], *, mix: bool, quiet: bool, apart: bool = False) -> None:
    """InputError where the finished records come from environments that differ in what matters; with `mix` a message on stderr.

    With `apart` kinds of devices may differ: they stand in panels of their own.
    """
    from lisabench.provenance import in_words, mixed, refusal

    environments = {key: environment for run in runs for key, environment in run.environments.items()}
    used: dict[str, list[str | None]] = {}
    for run in runs:
        for record in run.records:
            if record["status"] == "ok":
                used.setdefault(run.device_of(record) if apart else "", []).append(record["environment"])
    differing = {device: differences for device, hashes in used.items() if (differences := mixed(environments, hashes))}
    found = [difference for differences in differing.values() for difference in differences]
    which = f" with {' and '.join(differing)}" if len(used) > 1 else ""
    subject = (
        f"the machines{which} that {' and '.join(repr(str(run.path)) for run in runs)} {'was' if len(runs) == 1 else 'were'} measured on"
    )
    if found and not mix:
        raise InputError(refusal(subject, found, because="their times do not belong in one figure", then="renders it"))
    if found and not quiet:
        _say(f"{subject} differ in {in_words(found)}")


def _say(text: str) -> None:
    from lisabench.cli.console import lines, messages

    lines(messages(), text)
