"""Standard output and error that are full, closed or not read, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
MAIN = "from glimmer_export.exporter.cli import main; main()"
SINKS = {"full": ">/dev/full", "closed": ">&-", "not read": "| true"}
COMMANDS = {
    "help": ["--help"],
    "tables": ["inspect", GOLDEN / "bundle"],
    "json": ["ask", GOLDEN / "bundle", "w1 w2", "--store", GOLDEN / "store-fp16", "--json"],
}
REFUSED = ["inspect", "/nowhere"]
SHOWS_STREAMS = """
import os, glimmer_export.exporter.cli.run
from glimmer_export.exporter.cli import main
def run():
    nowhere = os.stat(os.devnull)
    print(*(os.path.samestat(os.fstat(number), nowhere) for number in range(3)), file=open({out!r}, "w"))
glimmer_export.exporter.cli.run.run = run
main()
"""


def shell(arguments: list[object], redirected: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command with its streams redirected; its exit code also where it stands in a pipe."""
    return subprocess.run(
        ["bash", "-c", f'"$@" {redirected}; exit ${{PIPESTATUS[0]}}', "bash", sys.executable, "-c", MAIN,
         *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(GOLDEN.parents[1]), **variables}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize("sink", SINKS)
@pytest.mark.parametrize("name", COMMANDS)
def test_standard_output_that_takes_nothing(name, sink):
    done = shell(COMMANDS[name], SINKS[sink])
    if sink == "not read":
        assert (done.returncode, done.stderr) == (141, "")
    else:
        assert done.returncode == 2
        assert done.stderr.startswith("OutputError: standard output: ")
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("sink", ["2>/dev/full", "2>&-"])
@pytest.mark.parametrize("arguments", [REFUSED, ["ask"]], ids=["named", "use"])
def test_standard_error_that_takes_nothing_changes_no_exit_code(arguments, sink):
    done = shell(arguments, sink)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


def test_a_file_that_is_opened_takes_no_closed_streams_place(tmp_path):
    """What is printed would be written into it."""
    script = SHOWS_STREAMS.format(out=str(tmp_path / "out"))
    environment = {**os.environ, "PYTHONPATH": str(GOLDEN.parents[1])}
    command = ["bash", "-c", '"$@" <&- >&- 2>&-', "bash", sys.executable, "-c", script]
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    assert (tmp_path / "out").read_text(encoding="utf-8") == "True True True\n"


@pytest.mark.parametrize(
    "sizes", [{"COLUMNS": "0"}, {"COLUMNS": "1", "LINES": "0"}, {"FORCE_COLOR": "1", "TERM": ""},
              *(pytest.param(sizes, marks=pytest.mark.slow) for sizes in (
                  {"COLUMNS": "abc", "TERMINAL_WIDTH": "abc"}, {"COLUMNS": "9" * 12}, {"TERM": "dumb", "NO_COLOR": "1"},
              ))],
    ids=str,
)  # fmt: skip
def test_terminals_of_no_size(sizes):
    for arguments in (["ask", "--help"], COMMANDS["tables"], ["ask"]):
        done = shell(arguments, "", **sizes)
        assert (done.returncode, "Traceback" in done.stderr) == (2 if arguments == ["ask"] else 0, False), done.stderr
        assert max(map(len, done.stdout.splitlines()), default=0) < 400
