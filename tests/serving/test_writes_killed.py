"""A server that is killed in the middle of a write: its store is whole, before or after, and another one goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from glimmer_export.exporter.memory import verify_store
from glimmer_export.runtime import Bundle, MemoryStore, PassageError
from tests.serving.conftest import BUNDLE, GOLDEN

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "0123456789abcdef0123456789abcdef"
PASSAGES = [{"id": name, "title": "w1", "text": "w2 w3 w4"} for name in ("a", "b", "c")]
# The server's process is killed before the n-th operation on files of the thread that writes.
SERVE = """
import os, signal, sys, threading
stop_at, count = int(sys.argv.pop(1)), 0
def hook(event, arguments):
    global count
    if event not in {"open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "sqlite3.connect"}:
        return
    if not threading.current_thread().name.startswith("glimmer-write"):
        return
    count += 1
    if count == stop_at:
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
from glimmer_export.exporter.cli import main
main()
"""
NEVER = 0


@contextmanager
def serving(store: Path, *, stop_at: int = NEVER) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Where a server of this store listens, and its process."""
    token = store.with_name("token")
    token.write_text(TOKEN, encoding="utf-8")
    arguments = ["serve", BUNDLE, "--store", store, "--write-token-file", token, "--port", "0", "--json"]
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, str(stop_at), *arguments], cwd=ROOT, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, env={**os.environ, "TMPDIR": str(store.parent)},
    ) as process:
        assert process.stdout is not None
        try:
            yield json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")["url"], process
        finally:
            process.terminate()


def put(url: str) -> dict[str, object] | None:
    """What the server says of the passages; None if it is gone meanwhile."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
    request = urllib.request.Request(f"{url}/v1/passages", json.dumps(PASSAGES).encode(), headers, method="PUT")
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            found: dict[str, object] = json.load(response)
            return found
    except (ConnectionError, OSError):
        return None


def held(store: Path) -> list[str]:
    """Which of the passages a whole store has."""
    assert verify_store(store).damaged == ()
    with MemoryStore.open(store, Bundle.open(BUNDLE)) as opened:
        found = []
        for passage in PASSAGES:
            try:
                opened.numbers([passage["id"]])
            except PassageError:
                continue
            found.append(passage["id"])
        return found


def check(store: Path, stop_at: int) -> bool:
    """Kill a server at this operation, and have another do the write; whether the write was not made yet."""
    with serving(store, stop_at=stop_at) as (url, process):
        if put(url) is not None:
            pytest.skip(f"the write has fewer than {stop_at} operations")
        assert process.wait(60) == -signal.SIGKILL
    before = held(store)
    assert before in ([], [passage["id"] for passage in PASSAGES])
    with serving(store) as (url, _):
        made = put(url)
        assert made is not None
        assert made["already_complete"] is bool(before)
    assert held(store) == [passage["id"] for passage in PASSAGES]
    assert not store.with_name("store.partial").exists()
    return not before


def test_a_server_killed_in_the_middle_of_a_write_leaves_the_store_whole(tmp_path):
    store = Path(shutil.copytree(GOLDEN / "store-fp16", tmp_path / "store"))
    assert check(store, 60), "killed after the write was made"


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", range(1, 200, 9))
def test_wherever_it_is_killed(tmp_path, stop_at):
    store = Path(shutil.copytree(GOLDEN / "store-fp16", tmp_path / "store"))
    check(store, stop_at)
