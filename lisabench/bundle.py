"""The repeat bundle: runs with all that was rendered of them in one zip file, for a paper's supplement; and the way back.

NAME/README.md, report.html, results.csv, figures/, tables/
NAME/runs/RUN/plan.json, environment.json, journal.jsonl, patterns/
"""

from __future__ import annotations

import shlex
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from lisabench.errors import InputError, RunError
from lisabench.files import writing_whole
from lisabench.journal import ENVIRONMENT, JOURNAL, PLAN
from lisabench.results import COMMANDS, Run

SUFFIX, RUNS, README = ".zip", "runs", "README.md"
_FIRST_DAY = (1980, 1, 1, 0, 0, 0)  # of zip's time: the same content is the same bytes


def pack(file: Path, runs: Sequence[Run], rendered: Path, files: Sequence[Path]) -> None:
    """Writes the runs and what was rendered of them, `files` in the folder `rendered`.

    Raises:
        InputError: the file's name does not end in .zip.
        RunError: it cannot be written.
    """
    check_name(file)
    top = PurePosixPath(file.stem)
    sources = {top / path.relative_to(rendered).as_posix(): path for path in files}
    for name, run in _names(runs).items():
        own = [run.path / part for part in (PLAN, ENVIRONMENT, JOURNAL)] + sorted((run.path / "patterns").glob("*.npz"))
        sources |= {top / RUNS / name / path.relative_to(run.path).as_posix(): path for path in own if path.exists()}
    with writing_whole(file) as held, zipfile.ZipFile(held, "w") as archive:
        archive.writestr(_entry(top / README), readme(file, runs))
        for place in sorted(sources):
            with archive.open(_entry(place), "w") as target, open(sources[place], "rb") as source:
                shutil.copyfileobj(source, target, 2**20)


def check_name(file: Path) -> None:
    """InputError for a name that `report` would not know again."""
    if file.suffix.lower() != SUFFIX:
        raise InputError(f"--bundle got {str(file)!r}; valid: a name that ends in {SUFFIX}, such as {file.stem or 'run'}{SUFFIX}")


def unpack(file: Path, into: Path) -> list[Path]:
    """Takes a bundle out into a new folder; the folders of its runs.

    Raises:
        InputError: it is no bundle, it is damaged, something in it would lie outside, or the folder is there already.
        RunError: the folder cannot be written, or the disk has no room for it.
    """
    if into.exists():
        raise InputError(f"{str(into)!r}, where {str(file)!r} would be taken out to, is there already; report that, or give another --out")
    unfinished = into.with_name(f".{into.name}.unpacking")
    try:
        with zipfile.ZipFile(file) as archive:
            places = dict(_places(archive, file))
            _check_room(archive, file, into)
            for info, place in places.items():
                target = unfinished / place
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(info) as source, open(target, "wb") as held:
                    shutil.copyfileobj(source, held, 2**20)
        unfinished.rename(into)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError) as error:
        raise InputError(f"{str(file)!r} cannot be read ({error}); give a file that `lisabench report --bundle` wrote") from error
    except OSError as error:
        raise RunError(
            f"{str(file)!r} cannot be taken out to {str(into)!r} ({error.strerror or error}); make room or give another --out"
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return sorted(path.parent for path in (into / RUNS).glob(f"*/{PLAN}"))


def _entry(place: PurePosixPath) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(str(place), _FIRST_DAY)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    return info


def _places(archive: zipfile.ZipFile, file: Path) -> Iterator[tuple[zipfile.ZipInfo, Path]]:
    """Each file of a bundle and where it belongs under the folder; all of them lie within."""
    infos = [info for info in archive.infolist() if not info.is_dir()]
    seen = set[PurePosixPath]()
    for info in infos:
        place, kind = PurePosixPath(info.filename), stat.S_IFMT(info.external_attr >> 16)
        windows = PureWindowsPath(info.filename)
        outside = place.is_absolute() or ".." in place.parts or "\\" in info.filename or windows.drive or windows.root
        if outside or kind not in (0, stat.S_IFREG) or place in seen or len(place.parts) < 2:
            raise InputError(
                f"{str(file)!r} is refused: its entry {info.filename!r} is no plain file of its own within one folder; nothing was taken out"
            )
        if info.flag_bits & 1:
            raise InputError(f"{str(file)!r} is encrypted; give a file that `lisabench report --bundle` wrote")
        seen.add(place)
    plans = [place for place in seen if place.match(f"*/{RUNS}/*/{PLAN}") and len(place.parts) == 4]
    if not plans or len({place.parts[0] for place in seen}) > 1:
        raise InputError(
            f"{str(file)!r} is no bundle: it holds no {RUNS}/RUN/{PLAN} in one folder; give a file that `lisabench report --bundle` wrote"
        )
    yield from ((info, Path(*PurePosixPath(info.filename).parts[1:])) for info in infos)


def _check_room(archive: zipfile.ZipFile, file: Path, into: Path) -> None:
    needed, parent = sum(info.file_size for info in archive.infolist()), into.absolute().parent
    while not parent.exists():
        parent = parent.parent
    free = shutil.disk_usage(parent).free
    if needed > free:
        raise RunError(
            f"{str(file)!r} takes {needed / 2**20:,.0f} MiB and {free / 2**20:,.0f} are free in {str(parent)!r}; make room or give another --out"
        )


def _names(runs: Sequence[Run]) -> Mapping[str, Run]:
    """The runs under their folders' names, each another one."""
    found: dict[str, Run] = {}
    for run in runs:
        name = wanted = run.path.resolve().name or "run"
        number = 2
        while name in found:
            name, number = f"{wanted}-{number}", number + 1
        found[name] = run
    return found


def readme(file: Path, runs: Sequence[Run]) -> str:
    """What stands where in the bundle, and how the runs are repeated."""
    lines = [
        f"# {file.stem}",
        "",
        "Measurements of attention operators, written by `lisabench report --bundle`. `report.html` shows them; `results.csv` has a line a",
        "cell, `figures/` and `tables/` what a paper shows, with a caption beside each table. `runs/` holds every record with its raw samples",
        "(`journal.jsonl`), what was asked for (`plan.json`) and the machine (`environment.json`).",
        "",
        f"    lisabench report {shlex.quote(file.name)}",
        "",
        "takes it out and renders it again, without measuring. Measured anew it is by",
        "",
    ]
    for name, run in _names(runs).items():
        kind = COMMANDS.get(run.plan.get("kind", ""), "scale")
        lines += [f"    {shlex.join(run.plan.get('command') or ['lisabench', kind])}", ""]
        lines += [f"({name}: lisabench {run.plan.get('lisabench', 'of an unknown version')}, {_machines(run)})", ""]
    own = sorted({op for run in runs for op, stated in run.plan["operators"].items() if stated.get("digest")})
    if own:
        lines += [f"Operators from files of one's own are not in here: {', '.join(own)}. Put them beside this.", ""]
    caveats = {stated["caveat"]: op for run in runs for op, stated in run.plan["operators"].items() if stated.get("caveat")}
    lines += [line for caveat, op in caveats.items() for line in (f"{op}: {caveat}.", "")]
    return "\n".join(lines)


def _machines(run: Run) -> str:
    told = []
    for environment in run.environments.values():
        libraries, git = environment.get("libraries") or {}, environment.get("git") or {}
        parts = [str(environment.get("device_name")), f"torch {libraries.get('torch', 'of an unknown version')}"]
        parts += [f"driver {environment['driver']}"] if environment.get("driver") else []
        parts += [f"commit {git['commit'][:12]}{' and changes' if git.get('dirty') else ''}"] if git.get("commit") else []
        told.append(", ".join(parts))
    return "; ".join(dict.fromkeys(told)) or "on an unknown machine"
