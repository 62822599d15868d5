"""The real server: PyPI's `nvidia-pytriton` has `tritonserver` and its Python backend, which run on a CPU.

It asks for numpy 1, so that it gets an environment of its own, with the wheel and the extra `cpu` alone.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

import pytest

from glimmer_export.exporter.triton import TritonOptions, write_repository
from glimmer_export.runtime import Session
from tests.packaging.conftest import wheel
from tests.packaging.uv_command import uv_command, uv_environment
from tests.triton.test_repository import BUNDLE, STORE

__all__ = ["wheel"]

pytestmark = pytest.mark.slow  # installs some 300 MB, and starts a server

SERVER = "nvidia-pytriton==0.7.0"
READY_SECONDS = 120
QUESTIONS = ["w1", "w0 w7", "w20 w31 w42 w53", "w33", ""] * 8
WITHOUT_PROXY = build_opener(ProxyHandler({}))


@dataclass(frozen=True)
class Server:
    http: str
    metrics: str
    process: subprocess.Popen[bytes]
    log: Path

    def get(self, url: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
        """A status, 0 if nothing listens, and what came with it."""
        data = None if body is None else json.dumps(body).encode()
        try:
            with WITHOUT_PROXY.open(Request(url, data), timeout=60) as response:
                return response.status, response.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()
        except URLError:
            return 0, ""

    def ask(self, *questions: str, **numbers: list[int]) -> tuple[int, dict[str, Any]]:
        tensors = [("question", "BYTES", questions), *((name, "INT32", column) for name, column in numbers.items())]
        inputs = [
            {"name": name, "datatype": kind, "shape": [len(column), 1], "data": [*column]}
            for name, kind, column in tensors
        ]
        status, text = self.get(f"{self.http}/v2/models/glimmer/infer", {"inputs": inputs})
        found = json.loads(text)
        return status, {each["name"]: each["data"] for each in found.get("outputs", [])} or found


@pytest.fixture(scope="module")
def triton_venv(wheel, tmp_path_factory) -> Path:
    """Its site-packages, the stub of the Python backend for this Python beside the backend."""
    venv = tmp_path_factory.mktemp("triton") / "venv"
    for command in (
        [*uv_command("venv"), "--python", sys.executable, venv],
        [
            *uv_command("pip", "install"), "--python", venv / "bin" / "python", SERVER,
            f"glimmer-export[cpu] @ {wheel.as_uri()}",
        ],
    ):
        done = subprocess.run(command, env=uv_environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    site = venv / "lib" / f"python{version}" / "site-packages"
    server = site / "pytriton" / "tritonserver"
    stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy(stub, server / "backends" / "python")
    return site


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def started(site: Path, repository: Path, folder: Path) -> Server:
    """A server on loopback, with the environment's packages and none of this source tree's."""
    http, grpc, metrics = free_ports(3)
    server, log = site / "pytriton" / "tritonserver", folder / "server.log"
    command: list[object] = [
        server / "bin" / "tritonserver", "--model-repository", repository,
        "--backend-directory", server / "backends", "--exit-on-error=false",
        "--http-address", "127.0.0.1", "--http-port", http, "--grpc-address", "127.0.0.1", "--grpc-port", grpc,
        "--metrics-address", "127.0.0.1", "--metrics-port", metrics,
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | {
        "PATH": f"{site.parents[2] / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(site), "LD_LIBRARY_PATH": str(site / "nvidia_pytriton.libs"),
    }  # fmt: skip
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*map(str, command)], cwd=folder, env=environment, stdout=stream, stderr=subprocess.STDOUT
        )
    return Server(f"http://127.0.0.1:{http}", f"http://127.0.0.1:{metrics}", process, log)


def stopped(server: Server) -> int:
    server.process.send_signal(signal.SIGTERM)
    try:
        return server.process.wait(timeout=60)
    finally:
        server.process.kill()


def wait_until(server: Server, path: str) -> None:
    end = time.monotonic() + READY_SECONDS
    while server.get(server.http + path)[0] != 200:
        assert server.process.poll() is None, server.log.read_text()
        assert time.monotonic() < end, server.log.read_text()
        time.sleep(0.2)


@pytest.fixture(scope="module")
def server(triton_venv, tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    write_repository(BUNDLE, STORE, folder / "repo", TritonOptions(threads=1))
    running = started(triton_venv, folder / "repo", folder)
    try:
        wait_until(running, "/v2/health/ready")
        yield running
    finally:
        assert stopped(running) == 0


def test_it_answers_as_the_session_does_and_a_bad_question_fails_alone(server):
    with Session.open(BUNDLE, STORE, threads=1) as session:
        expected = session.answer_many(QUESTIONS)
    assert any(each.answer for each in expected)
    with ThreadPoolExecutor(16) as clients:
        found = list(clients.map(server.ask, QUESTIONS))
    for (status, outputs), answer in zip(found, expected, strict=True):
        if answer.error is not None:
            assert (status, "expected some text" in outputs["error"]) == (400, True)
        else:
            assert (status, outputs["answer"]) == (200, [answer.answer])
            record = json.loads(outputs["record"][0])
            assert record["token_ids"] == [*answer.token_ids]
            assert [each["id"] for each in record["passages"]] == [each.passage.id for each in answer.passages]


def test_numbers_of_passages_and_a_batch_of_a_clients_own(server):
    status, outputs = server.ask("w1", "", "w33", top_k=[2, 2, 3], top_m=[1, 1, 1])
    assert status == 200
    records = [json.loads(record) for record in outputs["record"]]
    assert [len(record["passages"]) for record in records] == [2, 0, 3]
    assert [bool(record["error"]) for record in records] == [False, True, False]
    assert server.ask("w1", top_k=[0])[0] == 400


def test_its_metrics_count_batches(server):
    with ThreadPoolExecutor(16) as clients:
        list(clients.map(server.ask, ["w1"] * 64))
    status, text = server.get(f"{server.metrics}/metrics")
    assert status == 200
    counts = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    executions = float(counts['nv_inference_exec_count{model="glimmer",version="1"}'])
    assert 0 < executions < float(counts['nv_inference_count{model="glimmer",version="1"}'])


def test_a_damaged_store_is_never_ready(triton_venv, tmp_path):
    write_repository(BUNDLE, STORE, tmp_path / "repo")
    (tmp_path / "repo" / "glimmer" / "1" / "store" / "passages.sqlite").write_bytes(b"damaged")
    server = started(triton_venv, tmp_path / "repo", tmp_path)
    try:
        wait_until(server, "/v2/health/live")
        assert server.get(f"{server.http}/v2/models/glimmer/ready")[0] == 400
        assert "StoreError: " in server.log.read_text()
    finally:
        stopped(server)
