"""A page's server is waited for, asked and stopped; one that fails, or that a page leaves running, is a fault."""

from __future__ import annotations

import pytest

from tests.docs import work_folder
from tests.docs.pages import PAGES, Step
from tests.docs.work_folder import STOP, WorkFolder

SERVES = """python -c 'import http.server, os
port = int(os.environ["GLIMMER_SERVE_PORT"])
server = http.server.HTTPServer(("127.0.0.1", port), http.server.SimpleHTTPRequestHandler)
print("Serving at port", port, flush=True)
server.serve_forever()' &"""
FAILS = "python -c 'raise SystemExit(3)' &"
ASKS = "curl -s http://127.0.0.1:8080/said.txt"


@pytest.fixture
def faults(tmp_path, monkeypatch):
    """The faults of a page that has these commands, each with what it shows."""
    monkeypatch.setattr(work_folder, "_bring", lambda directory: (directory / "said.txt").write_text("it works\n"))
    monkeypatch.setattr(work_folder, "STOPPED", (-15,))  # this server hears no signal

    def run(*commands: tuple[str, str]) -> list[str]:
        found = [Step("a page", "console", source, shown, None) for source, shown in commands]
        monkeypatch.setattr(work_folder, "steps", lambda page: found)
        return WorkFolder(tmp_path).run_through(PAGES[0])

    return run


def test_it_is_waited_for_asked_at_its_own_port_and_stopped(faults):
    assert faults((SERVES, "Serving at port ...\n"), (ASKS, "it works\n"), (STOP, "")) == []


def test_what_it_says_is_compared(faults):
    (fault,) = faults((SERVES, "Serving at port ...\n"), (ASKS, "it does not\n"), (STOP, ""))
    assert "it works" in fault


def test_one_that_ends_is_a_fault(faults):
    (fault,) = faults((FAILS, "Serving at port ...\n"))
    assert "ends with 1" in fault


def test_one_that_is_left_running_is_a_fault(faults):
    (fault,) = faults((SERVES, "Serving at port ...\n"))
    assert "leaves a server running" in fault
