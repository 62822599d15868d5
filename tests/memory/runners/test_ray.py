"""`memory build --runner ray` on a Ray of this machine: the same bytes, whatever is killed, and nothing left behind.

Ray runs in processes of its own, which the tests find by a mark in their environment; every wait has an end.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar
from uuid import uuid4

import pytest

from glimmer_export.exporter.memory import build_store
from tests.bundle_factory import NOT_FINITE, tree, write_corpus, write_rows

pytest.importorskip("ray")

ROOT = Path(__file__).resolve().parents[3]
SECONDS = 180
SETTINGS = {"passages_per_shard": 500, "batch_tokens": 1}
"""A run of the graph for each passage: a shard takes long enough to be killed in its middle."""
OPTIONS = ("--passages-per-shard", "500", "--batch-tokens", "1")
Found = TypeVar("Found")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    write_corpus(path, 3300)
    return path


@pytest.fixture(scope="module")
def local(bundle, corpus, tmp_path_factory) -> dict[str, str]:
    output = tmp_path_factory.mktemp("local") / "store"
    build_store(bundle, corpus, output, **SETTINGS)
    return tree(output)


@pytest.fixture
def mark() -> Iterator[str]:
    """What marks the processes of a test; those that are still there in the end are killed, and the test fails."""
    mark = f"GLIMMER_TEST={uuid4()}"
    yield mark
    try:
        wait_for(lambda: not marked(mark), "the end of Ray's processes")
    finally:
        for process in marked(mark):
            os.kill(process, signal.SIGKILL)


def marked(mark: str) -> list[int]:
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in environment.read_bytes().split(b"\0"):
                found.append(int(environment.parent.name))
        except OSError:  # gone, or another user's
            continue
    return found


def start(mark: str, bundle: Path, corpus: Path, output: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from glimmer_export.exporter.cli import main; main()", "memory", "build"]
    name, value = mark.split("=")
    return subprocess.Popen(
        [*command, str(bundle), "--corpus", str(corpus), "-o", str(output), *OPTIONS, *options], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), name: value, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def on_ray(*arguments: object) -> subprocess.Popen[str]:
    return start(*arguments, "--runner", "ray", "--ray-actors", "2", "--json")


def wait_for(look: Callable[[], Found], what: str) -> Found:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.001)
    raise TimeoutError(what)


def kill_worker(partial: Path, shard: str = "*") -> None:
    """Kill a worker in the middle of a shard: what it was writing is still there when it is gone."""

    def killed() -> bool:
        for unfinished in partial.glob(f"workers/*/shards/.{shard}.safetensors.*.tmp"):
            process = int(unfinished.parents[1].name.rpartition("-")[2])
            if is_gone(process):
                continue  # an earlier one's
            os.kill(process, signal.SIGKILL)
            wait_for(lambda process=process: is_gone(process), "the worker's death")
            if unfinished.exists():
                return True
        return False

    wait_for(killed, "a worker in the middle of a shard")


def is_gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_the_store_is_that_of_one_process_though_a_worker_was_killed(mark, bundle, corpus, local, tmp_path):
    build = on_ray(mark, bundle, corpus, tmp_path / "store")
    kill_worker(tmp_path / "store.partial")
    out, err = build.communicate(timeout=SECONDS)
    assert (build.returncode, err) == (0, "")
    summary = json.loads(out)
    assert (summary["passages"], summary["shards"], summary["resumed_shards"]) == (3300, 7, 0)
    assert tree(tmp_path / "store") == local
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.slow
@pytest.mark.parametrize("next_runner", ["local", "ray"])
def test_a_build_that_is_killed_goes_on_with_either_runner(mark, bundle, corpus, local, tmp_path, next_runner):
    build = on_ray(mark, bundle, corpus, tmp_path / "store")
    wait_for(lambda: list(tmp_path.glob("store.partial/records/*.json")), "a record")
    build.kill()
    build.communicate(timeout=SECONDS)
    wait_for(lambda: not marked(mark), "the end of Ray's processes")
    assert not (tmp_path / "store").exists()
    command = on_ray if next_runner == "ray" else start
    build = command(mark, bundle, corpus, tmp_path / "store", *(["--json"] if next_runner == "local" else []))
    out, err = build.communicate(timeout=SECONDS)
    assert build.returncode == 0, err
    assert 0 < json.loads(out)["resumed_shards"] < 7
    assert tree(tmp_path / "store") == local
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.slow
def test_ctrl_c_stops_ray_and_keeps_what_is_done(mark, bundle, corpus, tmp_path):
    build = on_ray(mark, bundle, corpus, tmp_path / "store")
    wait_for(lambda: list(tmp_path.glob("store.partial/records/*.json")), "a record")
    build.send_signal(signal.SIGINT)
    build.communicate(timeout=SECONDS)
    assert build.returncode != 0
    assert not marked(mark)
    assert list(tmp_path.glob("store.partial/records/*.json"))
    assert not (tmp_path / "store.partial" / "workers").exists()


@pytest.mark.slow
def test_a_driver_of_ray_that_is_killed_is_named(mark, bundle, corpus, tmp_path):
    build = on_ray(mark, bundle, corpus, tmp_path / "store")
    wait_for(lambda: list(tmp_path.glob("store.partial/workers/*/shards/.*.tmp")), "a shard under way")
    [driver] = [
        process for process in marked(mark)
        if b"glimmer_export.exporter.memory.runners.ray_driver" in Path(f"/proc/{process}/cmdline").read_bytes()
    ]  # fmt: skip
    os.kill(driver, signal.SIGKILL)
    out, err = build.communicate(timeout=SECONDS)
    assert (build.returncode, out) == (2, "")
    assert "BackendError: Ray's driver: expected a process that ends by itself, found one killed by signal 9" in err


@pytest.mark.slow
def test_an_error_of_a_worker_is_that_of_one_process(mark, bundle, tmp_path):
    rows = write_corpus(tmp_path / "bad.jsonl", 2000)
    rows[1700] = {"id": "bad", "text": NOT_FINITE}
    corpus = write_rows(tmp_path / "bad.jsonl", rows)
    said = []
    for number, command in enumerate((start, on_ray)):
        build = command(mark, bundle, corpus, tmp_path / f"store{number}")
        out, err = build.communicate(timeout=SECONDS)
        assert (build.returncode, out) == (2, "")
        said.append(err)
        assert not marked(mark)
    assert said[0] == said[1]
    assert "passage 'bad'" in said[0]


@pytest.mark.slow
def test_a_shard_over_which_every_worker_dies_is_given_up(mark, bundle, corpus, tmp_path):
    build = on_ray(mark, bundle, corpus, tmp_path / "store")
    for _ in range(4):
        kill_worker(tmp_path / "store.partial", "00000")
    out, err = build.communicate(timeout=SECONDS)
    assert (build.returncode, out) == (2, "")
    assert "BackendError: shard 0: expected a worker to finish it, found 4 workers that died over it" in err
    assert list(tmp_path.glob("store.partial/records/*.json"))


@pytest.fixture
def cluster(mark, monkeypatch) -> Iterator[str]:
    """The address of a Ray with two CPUs, with a token that is in the environment."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", uuid4().hex)
    name, value = mark.split("=")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["start", "--head", "--block", f"--port={port}", "--num-cpus=2", "--include-dashboard=false"]
    with TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as directory:
        head = subprocess.Popen(
            [Path(sys.executable).with_name("ray"), *command, f"--temp-dir={directory}"], stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, name: value, "RAY_USAGE_STATS_ENABLED": "0"},
        )  # fmt: skip
        try:
            wait_for(lambda: answers(port), "the cluster")
            yield f"127.0.0.1:{port}"
        finally:
            os.killpg(head.pid, signal.SIGTERM)
            head.wait(SECONDS)


def answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@pytest.mark.slow
def test_a_cluster(mark, cluster, bundle, corpus, local, tmp_path):
    options = ("--runner", "ray", "--ray-address", cluster, "--json")
    build = start(mark, bundle, corpus, tmp_path / "store", *options)
    out, err = build.communicate(timeout=SECONDS)
    assert (build.returncode, err) == (0, "")
    assert json.loads(out)["shards"] == 7
    assert tree(tmp_path / "store") == local
    build = start(mark, bundle, corpus, tmp_path / "other", *options, "--threads", "3")
    out, err = build.communicate(timeout=SECONDS)
    assert (build.returncode, out) == (2, "")
    assert "OptionError: option --threads: expected at most the 2 CPUs of the cluster's largest machine, found 3" in err


@pytest.mark.slow
def test_no_cluster_is_named(mark, bundle, corpus, tmp_path):
    build = start(mark, bundle, corpus, tmp_path / "store", "--runner", "ray", "--ray-address", "127.0.0.1:9")
    out, err = build.communicate(timeout=SECONDS)
    assert (build.returncode, out) == (2, "")
    assert "BackendError: Ray at 127.0.0.1:9: expected a cluster that answers, of this version of Ray, found " in err
