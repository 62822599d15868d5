"""Steps of a part, each in a process of its own, their results in one JSON file that is whole after every step.

A step that finished is kept, and skipped when its part is run again. One that fails, or outlives its seconds, is
recorded with its error and the next begins; a step that the part has no time left for is left for another run. A
process of its own can be stopped at any point, gives all of the GPU's memory back, and takes a broken GPU context with
it. What it prints, a library's own words before a crash among them, goes to a log beside the file.
"""

from __future__ import annotations

import faulthandler
import json
import math
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glimmer_export.exporter.files.publish import replace_file
from glimmer_export.exporter.report.origin import utc_now

__all__ = ["DONE", "FAILED", "LEFT", "Part", "Step", "finite", "run_part"]

DONE, FAILED, LEFT = "done", "failed", "left for another run"
Results = Mapping[str, Any]
LEAST_SECONDS = 5.0
"""A step is not begun with less time than this, however short it hopes to be."""


@dataclass(frozen=True)
class Step:
    """One measurement: `run(results)` is given what earlier steps of its part found, and returns what JSON holds.

    `seconds` are what it may take before it is stopped; `needs` the steps without which it is not begun.
    """

    name: str
    seconds: float
    run: Callable[[Results], Any]
    needs: tuple[str, ...] = ()


@dataclass
class Part:
    """A part's file: what it is, the runs that made it, and its steps."""

    path: Path
    name: str
    runs: list[dict[str, Any]] = field(default_factory=list)
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, name: str) -> Part:
        """What earlier runs left, or nothing."""
        path = folder / f"{name}.json"
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"runs": [], "steps": {}}
        return cls(path, name, found["runs"], found["steps"])

    @property
    def results(self) -> dict[str, Any]:
        """By step, what was found by those that finished."""
        return {name: step["result"] for name, step in self.steps.items() if step["status"] == DONE}

    def write(self) -> None:
        """Put the file in place in one go."""
        content = {"part": self.name, "runs": self.runs, "steps": self.steps}
        replace_file(self.path, (json.dumps(finite(content), indent=1) + "\n").encode())


def run_part(
    folder: Path, name: str, steps: Sequence[Step], head: Mapping[str, Any], *, seconds: float,
    say: Callable[[str], None] = print, kept: Callable[[], None] = lambda: None,
) -> Part:
    """Run what is not finished of a part within `seconds`; `head` says of this run where and how it was made.

    `kept` is called whenever a step's result was written.
    """
    deadline = time.monotonic() + seconds
    part = Part.open(folder, name)
    part.runs.append({"date": utc_now(), **head})
    part.write()
    for step in steps:
        if part.steps.get(step.name, {}).get("status") == DONE:
            say(f"{name}/{step.name}: kept")
            continue
        started = time.monotonic()
        found = _run(step, part.results, deadline - started, folder / f"{name}.log")
        spent = round(time.monotonic() - started, 2)
        part.steps[step.name] = {"run": len(part.runs) - 1, "seconds": spent, **found}
        part.write()
        kept()
        say(f"{name}/{step.name}: {found['status']} after {spent:.1f} s {found.get('error', '')}".rstrip())
    return part


def finite(value: Any) -> Any:
    """The same with None for numbers that JSON has not."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _run(step: Step, results: Results, left: float, log: Path) -> dict[str, Any]:
    missing = [name for name in step.needs if name not in results]
    if missing:
        return {"status": LEFT, "error": f"needs {', '.join(missing)}"}
    if left < min(step.seconds, LEAST_SECONDS):
        return {"status": LEFT, "error": "no time left"}
    allowed = min(step.seconds, left)
    # Forked: the parent has begun no threads and no CUDA, and a child sees what a test put in place of modules.
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(step, results, log, sender), daemon=False)
    process.start()
    sender.close()
    try:
        answered = receiver.poll(None if math.isinf(allowed) else allowed)
        found: dict[str, Any] | None = receiver.recv() if answered else None
    except EOFError:
        process.join()
        return {"status": FAILED, "error": f"its process ended with exit code {process.exitcode}"}
    finally:
        receiver.close()
        if process.is_alive():
            process.join(0.1)
        process.kill()
        process.join()
    if found is None:
        what = "the rest of its part" if left < step.seconds else "it may take"
        return {"status": FAILED, "error": f"stopped after {allowed:.0f} s, {what}"}
    return found


def _child(step: Step, results: Results, log: Path, sender: Any) -> None:
    with log.open("a", encoding="utf-8") as stream:
        stream.write(f"# {step.name}\n")
        stream.flush()
        for output in (1, 2):
            os.dup2(stream.fileno(), output)
    # Of its own, as the parent's may be a test's that holds back what is written.
    sys.stdout = sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
    faulthandler.enable(file=sys.stderr)
    try:
        found: dict[str, Any] = {"status": DONE, "result": finite(step.run(results))}
    except Exception as error:  # noqa: BLE001  (whatever a step raises is recorded)
        traceback.print_exc()
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
        found = {"status": FAILED, "error": " ".join(text.split())[:2000]}
    sender.send(found)
