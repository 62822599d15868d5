"""A build that is killed, at any moment whatever, goes on and ends with the bytes of an unbroken one."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from glimmer_export.exporter.memory import build_store
from tests.bundle_factory import tree, write_corpus

ROOT = Path(__file__).resolve().parents[2]

SLOW_BUILD = """
import sys, time
import glimmer_export.exporter.memory.encode as encode
from glimmer_export.exporter.memory import build_store
fast = encode.encode_passages
def slow(*arguments):
    print(flush=True)
    time.sleep(0.05)
    return fast(*arguments)
encode.encode_passages = slow
build_store(*sys.argv[1:], passages_per_shard=8, batch_tokens=60)
"""

# Every operation on a file below the output's folder counts; the child is killed just before the n-th, for every n. The
# memory encoder is a stand-in, for speed.
KILL_EVERYWHERE = """
import os, shutil, signal, sys
from pathlib import Path
import numpy as np
import glimmer_export.exporter.memory.build as build_module
import glimmer_export.exporter.memory.runners.job as job_module
from glimmer_export.exporter.memory import convert_store
from tests.bundle_factory import D_MODEL, tree

bundle, corpus, folder, how = *map(Path, sys.argv[1:4]), sys.argv[4]
overwrite, source = how == "overwrite", folder.with_name("source")
EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "sqlite3.connect"}

class Encoder:
    def run(self, inputs):
        return {"hidden_states": np.repeat(inputs["input_ids"][..., None].astype(np.float32), D_MODEL, axis=2)}

job_module.memory_encoder = lambda *_: Encoder()

def build_store(output):
    if how == "convert" and output != source:
        return convert_store(source, output, "int8")
    return build_module.build_store(
        bundle, corpus, output, overwrite=overwrite, passages_per_shard=3, batch_tokens=60
    )

def build(kill_at):
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    left = kill_at
    def step():
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    def hook(event, arguments):
        if event not in EVENTS or isinstance(arguments[0], int):  # what is open already was counted
            return
        if str(folder) in os.fsdecode(os.fspath(arguments[0])):
            step()
    write = os.pwrite
    def pwrite(*arguments):
        step()
        return write(*arguments)
    sys.addaudithook(hook)
    os.pwrite = pwrite
    os.fsync = lambda _: None  # for a loss of power, which this is not
    try:
        present = (folder / "store" / "manifest.json").exists() and not overwrite
        done = build_store(folder / "store")
        assert done.already_complete == present, kill_at  # and says so, rather than that something is there
    except BaseException as error:
        print(repr(error), flush=True)
        os._exit(1)
    os._exit(0)

def fresh():
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if overwrite:
        (folder / "store").mkdir()
        (folder / "store" / "manifest.json").write_text("old")

if how == "convert":
    build_store(source)
fresh()
build_store(folder / "store")
expected, kill_at, status = tree(folder / "store"), 0, -1
while status != 0:
    kill_at += 1
    fresh()
    status = build(kill_at)
    assert status in (0, signal.SIGKILL), (kill_at, status)
    assert build(-1) == 0, kill_at
    assert tree(folder / "store") == expected, kill_at
    assert os.listdir(folder) == ["store"], kill_at
print(kill_at)
"""


@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_at_random_moments(bundle, tmp_path, kills):
    corpus, output = tmp_path / "corpus.jsonl", tmp_path / "store"
    write_corpus(corpus, 50 * kills)
    build_store(bundle, corpus, tmp_path / "unbroken", passages_per_shard=8, batch_tokens=60)
    command = [sys.executable, "-c", SLOW_BUILD, str(bundle), str(corpus), str(output)]
    seed = random.SystemRandom().randrange(10**6)
    generator = random.Random(seed)
    for _ in range(kills):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
            for _ in range(generator.randrange(6, 19)):  # a shard has about three batches
                assert process.stdout.readline() == b"\n", seed
            time.sleep(generator.uniform(0, 0.06))
            process.send_signal(signal.SIGKILL)
        assert not output.exists(), seed
    summary = build_store(bundle, corpus, output, passages_per_shard=8, batch_tokens=60)
    assert summary.resumed_shards > 0, seed
    assert tree(output) == tree(tmp_path / "unbroken"), seed
    assert not (tmp_path / "store.partial").exists()


@pytest.mark.parametrize("target", ["absent", "overwrite", "convert"])
def test_killed_before_each_file_operation(bundle, tmp_path, target):
    corpus = tmp_path / "corpus.jsonl"
    write_corpus(corpus, 5)
    arguments = [bundle, corpus, tmp_path / "killed", target]
    command = [sys.executable, "-c", KILL_EVERYWHERE, *map(str, arguments)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert int(result.stdout) > 30
