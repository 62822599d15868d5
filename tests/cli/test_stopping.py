"""Ctrl-C and SIGTERM, each in a process of its own, which sends itself the signal at one of its imports or files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bundle_factory import write_rows
from tests.exported import CORPUS

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
ROOT = GOLDEN.parents[1]

HEARD = """
import signal
for number in (signal.SIGINT, signal.SIGTERM):  # what starts in the background may have been told to ignore them
    signal.signal(number, signal.SIG_DFL)
"""
STOPPED = HEARD + """
import os, sys
from glimmer_export.exporter.cli import main
sent, left = False, {event}
def hook(event, arguments):
    global sent, left
    if event in ("import", "open") and not sent:
        left -= 1
        if left <= 0:
            sent = True
            os.kill(os.getpid(), signal.{name})
sys.addaudithook(hook)
main()
"""
BUSY = HEARD + """
import glimmer_export.exporter.cli.run, sys
from glimmer_export.exporter.cli import main
from glimmer_export.exporter.cli.stopping import Stopping
def run():
    {run}
glimmer_export.exporter.cli.run.run = run
{after}
main()
"""
IN_A_DESTRUCTOR = """
    class Sends:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)
    Sends()
    for _ in range(10 ** 9):
        pass
"""
MADE_ANOTHER_ERROR_OF = """
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise ImportError("a library's word for it")
"""
SWALLOWED = """
    try:
        signal.raise_signal(signal.SIGINT)
    except BaseException:
        pass
"""
AT_THE_END = "import atexit; atexit.register(lambda: signal.raise_signal(signal.SIGINT))"
IN_NATIVE_CODE = """
    import ctypes, threading
    # Half a second later the main thread is long where it stays.
    threading.Timer(0.5, print, ["begun"], dict(flush=True)).start()
    # Waits for ever, whatever signals come: nobody wakes it.
    ctypes.CDLL(None).pthread_cond_wait(ctypes.create_string_buffer(256), ctypes.create_string_buffer(256))
"""


def python(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )


@pytest.mark.parametrize("event", [1, 30, 90, 200, 320, 450])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_command_that_is_stopped_says_nothing_and_leaves_nothing(tmp_path, name, event):
    corpus = write_rows(tmp_path / "corpus.jsonl", CORPUS[:3])
    words = ("memory", "build", GOLDEN / "bundle", "--corpus", corpus, "-o", tmp_path / "store", "--index", "fts5")
    done = python(STOPPED.format(event=event, name=name), *words)
    assert (done.returncode, done.stdout, done.stderr) == (128 + getattr(signal, name), "", "")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("run", "after"),
    [(IN_A_DESTRUCTOR, ""), (MADE_ANOTHER_ERROR_OF, ""), (SWALLOWED, ""), ("sys.exit(0)", AT_THE_END)],
    ids=["in a destructor", "made another error of", "swallowed", "at the end"],
)
def test_whatever_becomes_of_the_exception_the_exit_code_is_the_signals(run, after):
    done = python(BUSY.format(run=run, after=after))
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize("before", ["", SWALLOWED], ids=["the first signal", "a signal after one that was swallowed"])
def test_native_code_that_does_not_return_is_left(before):
    with subprocess.Popen(
        [sys.executable, "-c", BUSY.format(run=before + IN_NATIVE_CODE, after="")],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline() == b"begun\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
            assert process.stderr.read() == b""
        finally:
            process.kill()
