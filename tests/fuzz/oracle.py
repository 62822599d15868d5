"""What must come of every case: it is read, or refused by an error with a name, in time and without gigabytes."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.fuzz.case import ROOT_OF_TREE, Case

__all__ = ["HANG_SECONDS", "Found", "Report", "Runner", "is_hung"]

HANG_SECONDS = 20.0
MAKING_SECONDS = 300.0
"""For making a sound input, and for the first use of one, which imports libraries."""
BUSY = 6
"""So many times as long on a machine whose cores others have."""
CASES_OF_A_WORKER = 400
"""After which another takes its place, so that nothing that libraries keep adds up."""


@dataclass(frozen=True)
class Found:
    """A case that came to a bad end."""

    case: Case
    text: str
    damage: str
    use: int | None

    def __str__(self) -> str:
        return (
            f"{self.case.target}, use {self.use}, {self.damage}: {self.text}\n"
            f"    python -m tests.fuzz --target {self.case.target!r} --seed {self.case.seed} --keep FOLDER"
        )


@dataclass
class Report:
    """What came of cases, by target."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    found: list[Found] = field(default_factory=list)

    def add(self, case: Case, outcome: dict[str, object]) -> None:
        kind = str(outcome["kind"])
        self.counts.setdefault(case.target, Counter())[kind] += 1
        if kind == "failed":
            use = outcome.get("use")
            number = use if isinstance(use, int) else None
            self.found.append(Found(case, str(outcome["text"]), str(outcome.get("damage")), number))

    def lines(self) -> Iterator[str]:
        for name, counts in self.counts.items():
            yield _line(name, counts)
        total = sum((counts for counts in self.counts.values()), Counter())
        yield _line("all", total)


def _line(name: str, counts: Counter[str]) -> str:
    return f"{name:24} {sum(counts.values()):6}  " + ", ".join(f"{kind} {n}" for kind, n in sorted(counts.items()))


class Runner:
    """A worker process, begun anew where it has ended; use as a context."""

    def __init__(self, root: Path) -> None:
        self.root, self.done, self.log, self._rest = root, 0, "", b""
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def run(self, cases: Iterable[Case]) -> Report:
        report = Report()
        for case in cases:
            report.add(case, self.outcome(case))
        return report

    def outcome(self, case: Case) -> dict[str, object]:
        """What came of a case, as the worker says it; a worker that ends or hangs is what came of it."""
        if self.done >= CASES_OF_A_WORKER:
            self._end()
        process = self._begun()
        self.done += 1
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(asdict(case)).encode() + b"\n")
            process.stdin.flush()
        limit = MAKING_SECONDS
        while True:
            said = self._line(process, limit)
            if said is None:
                process.kill()
                process.wait()
                code = process.returncode
                hung = code == -9
                self._end()
                text = f"longer than {limit:.0f} s" if hung else f"the process ended with {code}"
                return {"kind": "failed", "text": f"{text}; {self._where()}", "damage": "?"}
            if "kind" in said:
                return said
            self.log = str(said.get("log", self.log))
            limit = HANG_SECONDS if said.get("begun") else MAKING_SECONDS

    def _begun(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT_OF_TREE)}
            command = [sys.executable, "-m", "tests.fuzz.worker", str(self.root)]
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(command, cwd=ROOT_OF_TREE, env=environment, stdin=pipe, stdout=pipe)
            self.done, self._rest = 0, b""
        return self._process

    def _line(self, process: subprocess.Popen[bytes], seconds: float) -> dict[str, object] | None:
        """What the worker says next, None where it ends or says nothing for so long."""
        assert process.stdout is not None
        descriptor, begun, used = process.stdout.fileno(), time.monotonic(), _cpu_seconds(process.pid)
        while b"\n" not in self._rest:
            ready, _, _ = select.select([descriptor], [], [], 0.5)
            read = os.read(descriptor, 65_536) if ready else b""
            self._rest += read
            if ready and not read:
                process.wait()
                return None
            passed = time.monotonic() - begun
            if passed > seconds * BUSY or (passed > seconds and is_hung(process.pid, used, seconds)):
                return None
        line, _, self._rest = self._rest.partition(b"\n")
        said: dict[str, object] = json.loads(line)
        return said

    def _where(self) -> str:
        """Our own lines that the worker was at, of what it wrote as it was held up."""
        with contextlib.suppress(OSError):
            lines = Path(self.log).read_text(encoding="utf-8", errors="replace").splitlines()[-60:]
            own = [line.strip() for line in lines if "File" in line and str(ROOT_OF_TREE) in line][:4]
            return "; ".join(own) or "; ".join(lines[-2:])
        return ""

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def is_hung(process: int, used: float, seconds: float) -> bool:
    """Whether it has had its time on a core, or wants none; else other processes have it."""
    running = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "R"
    return not running or _cpu_seconds(process) - used > seconds


def _cpu_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
