"""Commands run one after the other, in forks of a process that starts Python and torch once.

`python -m tests.training.forks` reads JSON from standard input, a list of runs: `command` (the words behind
glimmer-export), `moment` (at which it is killed), `processes` (that train together) and `stderr` (a file for what they
print). It writes a list of their exit codes, one a process, -9 for one that was killed.

A moment is WORD:N, the N-th time that a path with this word in it is opened, made, renamed or removed: a line of the
log (`log.jsonl:7`), the middle of saving a state (`state.pt:4`), anything at all of the output or beside it (its name).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["run_forks"]

ROOT = Path(__file__).resolve().parents[2]
EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}


def run_forks(*runs: dict[str, Any]) -> list[list[int]]:
    """The exit codes of runs, by their processes."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.forks"], input=json.dumps(runs, default=str), capture_output=True,
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, text=True, check=False,
    )
    assert done.returncode == 0, done.stderr
    codes: list[list[int]] = json.loads(done.stdout)
    return codes


def fork(command: list[str], moment: str, stderr: str | None, environment: dict[str, str]) -> int:
    """Start the command in a process of its own, whose id is returned."""
    if pid := os.fork():
        return pid
    code = 70
    try:
        os.environ.update(environment)
        with Path(stderr or os.devnull).open("a", encoding="utf-8") as errors:
            os.dup2(errors.fileno(), 2)
        os.dup2(2, 1)
        code = _run(command, moment)
    except BaseException:  # noqa: BLE001 - a fork ends here, whatever happens
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _run(command: list[str], moment: str) -> int:
    import torch

    from glimmer_export.exporter.cli import main

    torch.set_num_threads(1)
    if moment:
        _arm(*moment.split(":"))
    sys.argv = ["glimmer-export", *command]
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def _arm(word: str, number: str) -> None:
    left = int(number)

    def count(event: str, values: tuple[object, ...]) -> None:
        nonlocal left
        if event in EVENTS and isinstance(values[0], (str, os.PathLike)) and word in os.fspath(values[0]):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def codes_of(run: dict[str, Any]) -> list[int]:
    """Run a command to its end, in as many processes as it says."""
    processes = run.get("processes", 1)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    together = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    pids = [
        fork(
            run["command"], run.get("moment", ""), run.get("stderr"),
            {**together, "RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {},
        )
        for rank in range(processes)
    ]
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


if __name__ == "__main__":
    import_module("glimmer_export.exporter.training.train")
    sys.stdout.write(json.dumps([codes_of(run) for run in json.load(sys.stdin)]))
