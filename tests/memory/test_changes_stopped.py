"""A change that is killed, or meets a full disk, before an operation on a file: the store is the old one or the new."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from glimmer_export.exporter.memory import append_passages, build_store, index_store
from glimmer_export.exporter.memory import texts as texts_module
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import OutputError
from tests.bundle_factory import tree, write_corpus, write_rows
from tests.encoder_factory import make_encoder
from tests.memory.contents import open_contents

ROOT = Path(__file__).resolve().parents[2]

# A child runs one change of a copy of the store and counts its operations on files there; before the n-th it is killed,
# or the disk is full for that one. The memory encoder is a stand-in, for speed.
SCRIPT = """
import errno, json, os, random, shutil, signal, sys
from pathlib import Path
import numpy as np
import glimmer_export.exporter.memory.append as append_module
from glimmer_export.exporter.memory.append import append_passages
from glimmer_export.exporter.memory.compact import compact_store
from glimmer_export.exporter.memory.delete import delete_passages
from glimmer_export.exporter.memory.verify import verify_store
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import OutputError
from glimmer_export.runtime.store import MemoryStore
from tests.bundle_factory import D_MODEL
from tests.memory.contents import open_contents

bundle, base, corpus, folder = map(Path, sys.argv[1:5])
how, kills, seed = sys.argv[5], int(sys.argv[6]), int(sys.argv[7])
opened = Bundle.open(bundle)
EVENTS = {"open", "os.mkdir", "os.rename", "os.link", "sqlite3.connect"}
REMOVALS = {"os.remove", "os.rmdir"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT

class Encoder:
    def run(self, inputs):
        return {"hidden_states": np.repeat(inputs["input_ids"][..., None].astype(np.float32), D_MODEL, axis=2)}

class Sentences:
    def passages(self, rows):
        return np.array([[len(text), len(title)] * 6 for title, text in rows], np.float32)

append_module.memory_encoder = lambda *_: Encoder()
append_module.open_encoder = lambda *_: Sentences()
store = folder / "store"
CHANGES = {
    "append": lambda: append_passages(store, bundle, corpus, replace=True, batch_tokens=60),
    "delete": lambda: delete_passages(store, ["p0", 3]),
    "compact": lambda: compact_store(store),
}

def run(change, stop_at):
    # The child's status and the operations it counted.
    receive, send = os.pipe()
    child = os.fork()
    if child:
        os.close(send)
        with os.fdopen(receive) as stream:
            counted = stream.read()
        return os.waitpid(child, 0)[1], int(counted or 0)
    count = 0
    def step():
        nonlocal count
        count += 1
        if count == stop_at:
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    def hook(event, arguments):
        if event not in EVENTS | (REMOVALS if how == "kill" else set()):
            return
        if isinstance(arguments[0], int) or str(folder) not in os.fsdecode(os.fspath(arguments[0])):
            return  # what is open already was counted
        if event == "open" and how == "full" and not arguments[2] & WRITES:
            return
        step()
    write = os.pwrite
    def pwrite(*arguments):
        step()
        return write(*arguments)
    sys.addaudithook(hook)
    os.pwrite = pwrite
    os.fsync = lambda _: None
    code = 0
    try:
        CHANGES[change]()
    except OutputError as error:
        code = 2 if "full disk" in str(error) else 1
    except BaseException as error:
        print(change, stop_at, repr(error), flush=True)
        code = 1
    os.write(send, str(count).encode())
    os._exit(code)

def fresh(change):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copytree(base, store)
    if change == "compact":  # something to compact
        assert run("append", -1)[0] == 0
        assert run("delete", -1)[0] == 0

def state():
    assert verify_store(store).damaged == ()
    with MemoryStore.open(store, opened) as reader:
        hits = reader.search_dense(np.arange(12), 100)
    return open_contents(store, opened), sorted((hit.number, hit.score) for hit in hits)

points = []
states = {}
for change in CHANGES:
    fresh(change)
    before = state()
    status, count = run(change, -1)
    assert status == 0, (change, status)
    states[change] = before, state()
    assert len(states[change][1][1]) == len(states[change][1][0])  # each passage has a vector
    points += [(change, number) for number in range(1, count + 1)]
random.Random(seed).shuffle(points)
stopped = 0
for change, number in points[:kills]:
    fresh(change)
    status, _ = run(change, number)
    old, new = states[change]
    assert status == signal.SIGKILL if how == "kill" else status in (0, 2 << 8), (change, number, status)
    found = state()
    assert found == old or found == new, (change, number)
    if how == "full":
        assert found == (new if status == 0 else old), (change, number)
    stopped += found == old
    status, _ = run(change, -1)
    assert status == 0, (change, number, status)
    assert state() == new, (change, number)
    assert verify_store(store).unnamed == (), (change, number)
    assert os.listdir(folder) == ["store"], (change, number)
print(json.dumps([len(points), stopped]))
"""


@pytest.fixture(scope="module")
def base(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    write_corpus(folder / "corpus.jsonl", 5)
    build_store(bundle, folder / "corpus.jsonl", folder / "store", passages_per_shard=3, batch_tokens=60)
    index_store(folder / "store", encoder=make_encoder(folder / "encoder"))
    return folder / "store"


@pytest.fixture
def corpus(tmp_path):
    return write_rows(tmp_path / "new.jsonl", [{"id": value, "text": f"w4 w{value}"} for value in (1, 8, 9, 10)])


@pytest.mark.parametrize("how", ["kill", "full"])
@pytest.mark.parametrize("stops", [8, pytest.param(50, marks=pytest.mark.slow)])
def test_stopped_at_random_operations(bundle, base, corpus, tmp_path, how, stops):
    seed = random.SystemRandom().randrange(10**6)
    arguments = [bundle, base, corpus, tmp_path / "stopped", how, stops, seed]
    command = [sys.executable, "-c", SCRIPT, *map(str, arguments)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"seed {seed}\n{result.stdout}{result.stderr}"


def test_a_disk_that_fills_up_under_sqlite_leaves_the_store_as_it_was(bundle, base, tmp_path, monkeypatch):
    store, opened = shutil.copytree(base, tmp_path / "store"), Bundle.open(bundle)
    rows = [{"id": f"n{index}", "text": " ".join(f"x{word}" for word in range(900))} for index in range(9)]
    long = write_rows(tmp_path / "long.jsonl", rows)
    pages = (store / "passages.sqlite").stat().st_size // 4096
    before, files = open_contents(store, opened), tree(store)
    with monkeypatch.context() as patched:
        statement = f"PRAGMA max_page_count = {pages}"
        patched.setattr(texts_module, "SETTINGS", (*texts_module.SETTINGS, statement))
        with pytest.raises(OutputError, match="a full disk"):
            append_passages(store, bundle, long)
    assert tree(store) == files
    assert open_contents(store, opened) == before
    append_passages(store, bundle, long)
    assert not (tmp_path / "store.partial").exists()
