"""The starts for clusters in examples/cluster: whole for their readers, and with options that lisabench has."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).parent.parent / "examples" / "cluster"
SCRIPTS, PAGES = sorted(FOLDER.glob("*.sh")), sorted(FOLDER.glob("*.yaml"))


def options() -> set[str]:
    from typer.main import get_command

    from lisabench.cli import app

    commands: Any = get_command(app)
    return {name for command in ("scale", "merge") for option in commands.commands[command].params for name in option.opts}


def test_all_are_looked_at() -> None:
    assert {path.name for path in [*SCRIPTS, *PAGES]} == {"slurm.sh", "slurm-shards.sh", "slurm.yaml", "kuberay.yaml"}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_bash_and_say_what_they_want_of_slurm(path: Path) -> None:
    subprocess.run(["bash", "-n", str(path)], check=True)
    lines = path.read_text().splitlines()
    asked = [line for line in lines if line.startswith("#SBATCH ")]
    assert asked
    assert all(re.fullmatch(r"#SBATCH --[a-z-]+(=\S+)?", line) for line in asked)
    # Slurm reads no more of them after the first command.
    assert lines.index(asked[-1]) < min(place for place, line in enumerate(lines) if line and not line.startswith("#"))


@pytest.mark.parametrize("path", [*SCRIPTS, *PAGES], ids=lambda path: path.name)
def test_the_options_are_lisabench_s(path: Path) -> None:
    words = path.read_text().replace("\\\n", " ")
    commands = [*re.findall(r"lisabench (?:scale|merge) (.*)", words), *re.findall(r"plan\+?=\((.*)\)", words)]
    found = {name for command in commands for name in re.findall(r"--[a-z][a-z-]+", command)}
    if path.name == "kuberay.yaml":
        found |= set(re.findall(r"--[a-z][a-z-]+", yaml.safe_load(words)["spec"]["entrypoint"]))
    assert found
    assert found <= options()


def test_the_launcher_s_page_keeps_ray_s_own_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    ray = pytest.importorskip("ray")
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(yaml.safe_load((FOLDER / "slurm.yaml").read_text()), schema)


def test_the_page_for_kubernetes_has_what_a_rayjob_needs() -> None:
    (job,) = yaml.safe_load_all((FOLDER / "kuberay.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    subprocess.run(["bash", "-n", "-c", job["spec"]["entrypoint"]], check=True)
    cluster = job["spec"]["rayClusterSpec"]
    head, (workers,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert head["rayStartParams"] == {"num-cpus": "0", "num-gpus": "0"}
    for group in (head, workers):
        (container,) = group["template"]["spec"]["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    mounted = {mount["name"] for mount in head["template"]["spec"]["containers"][0]["volumeMounts"]}
    assert mounted == {volume["name"] for volume in head["template"]["spec"]["volumes"]}
