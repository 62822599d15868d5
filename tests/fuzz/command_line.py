"""A case by a command of its own: exit code 0, 1 or 2, and no traceback on stderr."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from random import Random

from tests.fuzz.case import ROOT_OF_TREE, Case, Sound, written_words
from tests.fuzz.commands import odd_words
from tests.fuzz.oracle import HANG_SECONDS, is_hung
from tests.fuzz.targets import TARGETS

__all__ = ["has_command", "run_as_process"]

SCRIPT = "import sys; sys.argv[0] = 'glimmer-export'; from glimmer_export.exporter.cli import main; main()"
MAX_PEAK = 1800 << 20
"""A sound input of the same kind takes up to 800 MB, with torch, as a command; and a gigabyte more is too much."""


def has_command(name: str) -> bool:
    """Whether a target is used by commands."""
    return name == "options" or any(not callable(use) for use in TARGETS[name].uses)


def run_as_process(case: Case, root: Path) -> dict[str, object]:
    """What came of a case, as a worker says it, of one of the target's commands by the seed."""
    sound, folder, target = Sound(root), root / "process", TARGETS[case.target]
    commands = [number for number, use in enumerate(target.uses) if not callable(use)]
    random = Random(f"command {case.target} {case.seed}")
    number = random.choice(commands) if commands else 0
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    prepared = Case(case.target, case.seed, number).prepare(folder, sound)
    out = folder / "here" / "there" / "out"
    use = prepared.use
    words = odd_words(random, out) if callable(use) else written_words(use, prepared.path, out, sound)
    return {**_outcome(words, out.parent, prepared), "use": number, "damage": prepared.damage}


def _outcome(words: list[str], directory: Path, prepared: object) -> dict[str, object]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT_OF_TREE), "COLUMNS": "200"}
    command = [sys.executable, "-c", SCRIPT, *words]
    with (directory.parent / "stderr").open("w+b") as stderr:
        process = subprocess.Popen(
            command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr
        )
        code, peak = _ended(process)
        stderr.seek(0)
        said = stderr.read().decode("utf-8", "replace")
    if code is None:
        return {"kind": "failed", "text": f"longer than {HANG_SECONDS:.0f} s: {words[:3]}"}
    if "Traceback" in said or code not in (0, 1, 2):
        return {"kind": "failed", "text": f"exit code {code}: {said.strip()[-300:]!r}: {words}"}
    if peak > MAX_PEAK:
        return {"kind": "failed", "text": f"peak of {peak >> 20} MiB: {words[:3]}"}
    fault = prepared.fault(refused=bool(code))  # type: ignore[attr-defined]
    return {"kind": "failed", "text": fault} if fault else {"kind": "named" if code else "read", "text": ""}


def _ended(process: subprocess.Popen[bytes]) -> tuple[int | None, int]:
    """Exit code, None where it had to be ended, and the peak in bytes, as it was last looked at.

    The system's own count of an ended process begins with what the process that made it had.
    """
    end, peak = time.monotonic() + HANG_SECONDS, 0
    while True:
        code = process.poll()
        if code is not None:
            return code, peak
        peak = max(peak, _peak_of(process.pid))
        if time.monotonic() > end and is_hung(process.pid, 0.0, HANG_SECONDS):
            process.kill()
            process.wait()
            return None, 0
        time.sleep(0.01)


def _peak_of(pid: int) -> int:
    """The most memory that a running process has had since its program began, in bytes; 0 where it has just ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
