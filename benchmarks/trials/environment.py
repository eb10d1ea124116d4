"""The child process that tells the machine and its libraries, so that the parent needs no torch; prints them as JSON."""

from __future__ import annotations

import json
import sys


def main() -> None:
    import torch

    from lisabench.measure.environment import environment

    settings = json.loads(sys.argv[1])
    if settings["threads"]:
        torch.set_num_threads(settings["threads"])
    found = environment(settings["device"])
    print(json.dumps({name: value for name, value in found.items() if name not in ("host", "command")}))


if __name__ == "__main__":
    main()
