"""A server in a process of its own, as a user starts it, and what the system says of that process."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.fuzz.command_line import SCRIPT

__all__ = ["Served", "rss_bytes_of"]

ROOT = Path(__file__).resolve().parents[3]
ADDRESS = re.compile(r"http://([0-9.]+):(\d+)")
STARTS_S, ENDS_S = 300, 120
"""Nothing takes so long unless it is broken, or the machine is very busy."""


class Served:
    """`glimmer-export serve BUNDLE --store STORE` with options, warmed up; ended and its log read at the exit."""

    def __init__(self, bundle: Path, store: Path, **options: object) -> None:
        self.bundle, self.store = bundle, store
        chosen = {"port": 0, "threads": 1, **options}
        words = [f"--{name.replace('_', '-')}={value}" for name, value in chosen.items()]
        self._log = tempfile.TemporaryFile("w+b")  # noqa: SIM115  # closed in __exit__
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, "serve", bundle, "--store", store, *words],
            stdout=subprocess.PIPE, stderr=self._log, stdin=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "COLUMNS": "1000"},
        )
        self.code: int | None = None
        self._told = False
        self.host, self.port = self._address()
        self.url = f"http://{self.host}:{self.port}"
        end = time.monotonic() + STARTS_S
        while httpx.get(f"{self.url}/readyz").status_code != 200:
            assert time.monotonic() < end, "the server did not get ready"
            time.sleep(0.02)

    def _address(self) -> tuple[str, int]:
        assert self.process.stdout is not None
        said, end = b"", time.monotonic() + STARTS_S
        while (found := ADDRESS.search(said.decode())) is None:
            readable, _, _ = select.select([self.process.stdout], [], [], max(0.0, end - time.monotonic()))
            new = os.read(self.process.stdout.fileno(), 65536) if readable else b""
            if not new:
                self.process.kill()
                raise AssertionError(f"the server did not start: {said!r} {self.log()[-3000:]}")
            said += new
        return found[1], int(found[2])

    @property
    def rss_bytes(self) -> int:
        """Memory that it holds."""
        return rss_bytes_of(self.process.pid)

    @property
    def cpu_seconds(self) -> float:
        """Of all its threads, so far."""
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system

    @property
    def num_connections(self) -> int:
        """Open ones, that it listens at apart."""
        held = psutil.Process(self.process.pid).net_connections("tcp")
        return sum(item.status != psutil.CONN_LISTEN for item in held)

    def metric(self, name: str) -> float:
        """A number at /metrics without labels."""
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))

    def log(self) -> str:
        """All that it has written to stderr."""
        self._log.seek(0)
        return self._log.read().decode("utf-8", "replace")

    def remarks(self) -> list[dict[str, Any]]:
        """Lines of its log that are worse than a warning; a line that is no JSON is."""
        found = []
        for line in self.log().splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                record = {"level": "no JSON", "event": line}
            if record.get("level") not in {"info", "warning"}:
                found.append(record)
        return found

    def answered(self) -> dict[str, int]:
        """Statuses by request id, as its log has them."""
        records = (json.loads(line) for line in self.log().splitlines() if line.startswith("{"))
        return {item["request_id"]: item["status"] for item in records if item.get("event") == "request"}

    def tell_to_stop(self) -> None:
        """As a service's manager does; once: a second signal ends it on the spot."""
        if not self._told:
            self._told = True
            self.process.send_signal(signal.SIGTERM)

    def stop(self) -> int:
        """Its exit code, once it has finished what it was at."""
        if self.code is None:
            self.tell_to_stop()
            try:
                self.code = self.process.wait(ENDS_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise
        return self.code

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self.stop()
        finally:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self._log.close()


def rss_bytes_of(pid: int) -> int:
    """Of a process that runs."""
    size: int = psutil.Process(pid).memory_info().rss
    return size
