"""`serve` as a process: it says where it is, is stopped by SIGTERM and is then done; what it refuses is one line."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import closing
from pathlib import Path

from glimmer_export.runtime import BundleError, OperatingSystemError, OptionError
from tests.golden.whole import whole

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = whole("schema8")
BUNDLE, STORE = GOLDEN / "bundle", GOLDEN / "store-int8"
SERVE = """
import signal
for number in (signal.SIGINT, signal.SIGTERM):  # what starts in the background may have been told to ignore them
    signal.signal(number, signal.SIG_DFL)
from glimmer_export.exporter.cli import main
main()
"""


def test_it_serves_until_sigterm_and_ends_well(tmp_path):
    config = tmp_path / "serve.yaml"
    config.write_text(json.dumps({"bundle": str(BUNDLE), "store": str(STORE), "port": 1}), encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, "serve", "--config", config, "--port", "0", "--json"], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "GLIMMER_SERVE_LOG_QUESTIONS": "true"},
    ) as process:
        assert process.stdout is not None
        url = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")["url"]
        with urllib.request.urlopen(f"{url}/healthz") as response:
            assert json.load(response) == {"status": "ok"}
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert out == ""
    lines = [json.loads(line) for line in errors.splitlines()]
    assert [line["path"] for line in lines if line["event"] == "request"] == ["/healthz"]
    assert "Traceback" not in errors


def test_what_cannot_be_served_is_one_line(refused, tmp_path):
    assert "bundle" in refused(OptionError, "serve")
    refused(BundleError, "serve", tmp_path / "nowhere", "--port", 0)
    assert "--token-file" in refused(OptionError, "serve", BUNDLE, "--store", STORE, "--host", "0.0.0.0")
    assert "token file" in refused(OptionError, "serve", BUNDLE, "--store", STORE, "--token-file", BUNDLE / "none")
    assert "config" in refused(OptionError, "serve", "--config", tmp_path / "config.yaml")
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        assert str(port) in refused(OperatingSystemError, "serve", BUNDLE, "--store", STORE, "--port", port)
    assert "host.invalid" in refused(
        OperatingSystemError, "serve", BUNDLE, "--host", "host.invalid", "--insecure", "--port", 0
    )
