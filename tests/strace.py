"""What a process does to files, told by strace, and whether a loss of power at any moment would leave old or new."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

__all__ = ["FileState", "traced_commands"]

ROOT = Path(__file__).resolve().parents[1]
WRITES = ("write", "pwrite64", "writev", "pwritev", "ftruncate", "sendfile", "copy_file_range")
SYNCS, RENAMES, LINKS = ("fsync", "fdatasync"), ("rename", "renameat", "renameat2"), ("link", "linkat")
REMOVALS, FOLDERS = ("unlink", "unlinkat", "rmdir"), ("mkdir", "mkdirat")
CALLS = (*WRITES, *SYNCS, *RENAMES, *LINKS, *REMOVALS, *FOLDERS, "openat")
BEGUN = "/begin/"
"""A file that is not there, which the driver tries to open before each command."""
DRIVER = f"""
import sys
from glimmer_export.exporter.cli import main
arguments, name = sys.argv[1:], sys.argv[0]
commands = " ".join(arguments).split(" -- ")
for number, command in enumerate(commands):
    try:
        open(f"{BEGUN}{{number}}")
    except OSError:
        pass
    sys.argv = ["glimmer-export", *command.split(" ")]
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code or 0
    if code not in (0, 1):  # 1: a gate that was not passed
        sys.exit(f"{{command}}: exit code {{code}}")
"""
LINE = re.compile(r"(\d+) +(?:<\.\.\. (?P<resumed>\w+) resumed>|(?P<name>\w+)\()(?P<rest>.*)")
PATH = re.compile(r'(?:\d+|AT_FDCWD)<(?P<at>/[^>]*)>(?:\(deleted\))?(?:, "(?P<below>[^"]*)")?|"(?P<path>[^"]*)"')
QUIETLY = ("-f", "--seccomp-bpf", "-qq")
"""Children too; a process stops at the calls that are traced, and at no other."""
UNPUBLISHED = re.compile(r"\.glimmer-new\.\w+/|\.partial/")
"""What lies in these folders belongs to nothing yet: libraries write there as they do."""
UNFINISHED = " <unfinished ...>"


@dataclass
class FileState:
    """What of the files below `folder` is not on the disk yet, in the course of one command."""

    folder: str
    written: set[str] = field(default_factory=set)
    listed: set[str] = field(default_factory=set)
    renamed: set[str] = field(default_factory=set)
    renames: list[str] = field(default_factory=list)
    removals: list[str] = field(default_factory=list)

    def see(self, call: str, arguments: str) -> None:
        """Take a call that succeeded; AssertionError where a loss of power could now leave neither old nor new."""
        where = [path for path in _paths(arguments) if path.startswith(self.folder)]
        if not where:
            return
        path, parent = where[0], str(Path(where[-1]).parent)
        if call == "openat":
            if "O_CREAT" in arguments:
                self.listed.add(parent)
        elif call in WRITES:
            self.written.add(path)
        elif call in FOLDERS:
            self.listed |= {path, parent}
        elif call in SYNCS:
            for waiting in (self.written, self.listed, self.renamed):
                waiting.discard(path)
        elif call in LINKS:
            assert path not in self.written, f"{path} is linked and not on the disk"
            self.listed.add(parent)
        elif call in RENAMES:
            self._rename(path, where[-1])
        elif call in REMOVALS:
            self._remove(path)

    def check_end(self) -> None:
        """AssertionError where the command ended and something that it wrote is not on the disk."""
        assert not self.renamed, f"not synced after a rename: {self.renamed}"
        left = {path for path in self.written if Path(path).exists()}
        assert not left, f"written and not synced: {left}"

    def _rename(self, source: str, target: str) -> None:
        if not UNPUBLISHED.search(target):
            self._check_rename(source, target)
            self.renamed |= {str(Path(source).parent), str(Path(target).parent)}
        for waiting in (self.written, self.listed):
            moved = {path for path in waiting if _is_below(path, source)}
            waiting.difference_update(moved)
            waiting.update(target + path[len(source) :] for path in moved)
        self.renames.append(target)

    def _check_rename(self, source: str, target: str) -> None:
        waiting = self.written | self.listed
        inside = {path for path in waiting if _is_below(path, source)}
        assert not inside, f"{source} becomes {target} while {inside} are not on the disk"
        if Path(target).name == "manifest.json":
            named = {path for path in waiting if Path(target).parent in Path(path).parents}
            assert not named, f"{target} names files in {named}, which are not on the disk"

    def _remove(self, path: str) -> None:
        assert not self.renamed, f"{path} is removed before the lists of {self.renamed} are on the disk"
        for waiting in (self.written, self.listed):
            waiting.discard(path)
        self.removals.append(path)


def traced_commands(folder: Path, *commands: Sequence[object]) -> list[FileState]:
    """Run commands of `glimmer-export` in one traced process; for each what it did below `folder`, checked to its end.

    Skips where strace is absent, or may not trace.
    """
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed here")
    if subprocess.run([strace, *QUIETLY, "-o", os.devnull, "true"], check=False, capture_output=True).returncode:
        pytest.skip("strace may not trace processes here")
    log = folder / "strace.log"
    line = " -- ".join(" ".join(map(str, command)) for command in commands).split(" ")
    tracing = [strace, *QUIETLY, "-y", "-s", "0", "-e", f"trace={','.join(CALLS)}", "-e", "signal=none"]
    command = [*tracing, "-o", log, sys.executable, "-c", DRIVER, *line]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "250"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    states: list[FileState] = []
    for call, arguments, succeeded in _calls(log):
        if call == "openat" and BEGUN in arguments:
            if states:
                states[-1].check_end()
            states.append(FileState(str(folder.resolve())))
        elif states and succeeded:
            states[-1].see(call, arguments)
    states[-1].check_end()
    assert len(states) == len(commands)
    return states


def _calls(log: Path) -> Iterator[tuple[str, str, bool]]:
    """Each call's name, its arguments, and whether it succeeded, in the order in which they returned."""
    begun: dict[str, str] = {}
    with log.open(encoding="utf-8", errors="replace") as stream:
        for line in stream:
            match = LINE.match(line)
            if match is None:
                continue
            process, rest = match[1], match["rest"]
            if rest.endswith(UNFINISHED):
                begun[process] = rest.removesuffix(UNFINISHED)
                continue
            if match["resumed"]:
                rest = begun.pop(process, "") + rest
            arguments, _, result = rest.rpartition(" = ")
            yield match["resumed"] or match["name"], arguments, not result.startswith(("-1", "?"))


def _paths(arguments: str) -> Iterator[str]:
    for match in PATH.finditer(arguments):
        path = match["path"] if match["at"] is None else match["at"]
        if match["below"]:
            path = os.path.join(path, match["below"])  # noqa: PTH118 - as the system does, an absolute one alone
        yield os.path.normpath(path)


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")
