"""docs/deploy: Dockerfiles are read as Docker reads them, and what they name is there. CI has nothing that builds them.

An own reader of the little that they use, so that nothing is installed for it: whatever else stands in one is a fault.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path

import pytest

from tests.docs.cli_page import commands
from tests.docs.pages import DOCS, ROOT
from tests.docs.test_pages import EXTRAS

FILES = sorted((DOCS / "deploy").glob("*.Dockerfile"))
INSTRUCTIONS = {
    "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "RUN", "STOPSIGNAL", "USER", "WORKDIR",
}  # fmt: skip
ONCE = {"CMD", "ENTRYPOINT", "EXPOSE", "HEALTHCHECK", "STOPSIGNAL", "USER"}
each_file = pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)


def instructions(file: Path) -> list[tuple[str, str]]:
    """Instructions and the rest of each, with lines that go on joined; comments are left out."""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def stages(file: Path) -> list[list[tuple[str, str]]]:
    found: list[list[tuple[str, str]]] = []
    for word, rest in instructions(file):
        if word == "FROM":
            found.append([])
        found[-1].append((word, rest))
    return found


def last(file: Path, wanted: str) -> str:
    """The one instruction of this name in the stage that is the image."""
    (rest,) = (rest for word, rest in stages(file)[-1] if word == wanted)
    return rest


def copied_from_here(file: Path) -> list[tuple[list[str], str]]:
    words = [shlex.split(rest) for word, rest in instructions(file) if word == "COPY"]
    return [(each[:-1], each[-1]) for each in words if not each[0].startswith("--from=")]


def health_check(file: Path) -> list[str]:
    return json.loads(last(file, "HEALTHCHECK").partition("CMD ")[2])


def test_there_is_one_for_each_machine_of_the_guides():
    assert [file.stem for file in FILES] == ["cpu", "jetson", "t4"]


@each_file
def test_every_instruction_is_known_and_every_base_is_pinned(file):
    found = instructions(file)
    assert found[0][0] == "FROM"
    assert {word for word, _ in found} <= INSTRUCTIONS
    assert all(sum(word == name for word, _ in found) == 1 for name in ONCE)
    names = set()
    for base, *rest in (shlex.split(rest) for word, rest in found if word == "FROM"):
        assert re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*", base), base
        names |= {*rest[1:]} if rest[:1] == ["AS"] else set()
    sources = {word for _, rest in found for word in shlex.split(rest) if word.startswith("--from=")}
    assert sources == {f"--from={name}" for name in names}


@each_file
def test_it_runs_as_a_user_without_rights_and_says_how_it_is(file):
    assert re.fullmatch(r"[1-9]\d{4,}:[1-9]\d{4,}", last(file, "USER"))
    words = [word for word, _ in stages(file)[-1]]
    assert not {"RUN", "COPY"} & {*words[words.index("USER") :]}
    assert last(file, "STOPSIGNAL") == "SIGTERM"
    assert "/healthz" in " ".join(health_check(file))
    writable = re.findall(r"\b(?:HOME|CUDA_CACHE_PATH)=(\S+)", last(file, "ENV"))
    assert writable
    assert all(path == "/tmp" or path.startswith("/tmp/") for path in writable)


@each_file
def test_what_it_copies_and_installs_is_there(file):
    for sources, _ in copied_from_here(file):
        assert [name for name in sources if not (ROOT / name).exists()] == []
    copied = {name for sources, _ in copied_from_here(file) for name in sources}
    (install,) = (rest for word, rest in instructions(file) if word == "RUN" and " install --no-cache-dir" in rest)
    words = shlex.split(install)
    assert {*re.fullmatch(r"\.\[(.*)\]", words[-1])[1].split(",")} <= EXTRAS
    constraints = {name for option, name in pairwise(words) if option == "-c"}
    assert "constraints.txt" in constraints <= copied
    for word, rest in instructions(file):
        if word == "RUN" and "apt-get install" in rest:
            assert "--no-install-recommends" in rest
            assert rest.endswith("rm -rf /var/lib/apt/lists/*")


@each_file
def test_its_command_is_one_of_ours(file):
    words = [*json.loads(last(file, "ENTRYPOINT")), *json.loads(last(file, "CMD"))]
    assert words[:2] == ["glimmer-export", "serve"]
    (serve,) = (command for name, command in commands() if name == "serve")
    options = {option for parameter in serve.params for option in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= options
    assert dict(pairwise(words))["--port"] == last(file, "EXPOSE")


class Health(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/healthz" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@each_file
def test_the_health_check_tells_a_sound_server_from_others(file):
    with HTTPServer(("127.0.0.1", 0), Health) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [sys.executable, *health_check(file)[1:]]
        command[-1] = command[-1].replace("8080", str(server.server_port))
        found = {}
        for status in (200, 503):
            Health.status = status
            found[status] = subprocess.run(command, capture_output=True, check=False).returncode
        server.shutdown()
    found[0] = subprocess.run(command, capture_output=True, check=False).returncode
    assert found == {200: 0, 503: 1, 0: 1}


@pytest.mark.slow  # builds a wheel
@each_file
def test_a_wheel_is_built_of_what_it_copies(file, tmp_path):
    (tmp_path / "source").mkdir()
    for sources, target in copied_from_here(file):
        for name in sources:
            place = tmp_path / "source" / target / ("" if (ROOT / name).is_dir() else name)
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, place, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, place)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", tmp_path, tmp_path / "source"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len([*tmp_path.glob("*.whl")]) == 1
