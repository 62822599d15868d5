"""The README's commands and code, run in its order in one folder, then scale.md's; those that take long are checked.

So are the commands of the other documents, which need machines of their own; what is not of this project, such as a
Jetson's package manager, stands there in blocks marked `on the device`.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from glimmer_export.exporter.checkpoint.t5x.name_map import ENTRIES, read_name_map
from tests.bundle_factory import write_rows
from tests.checkpoint.golden.known import DIRECTORY as GOLDEN
from tests.checkpoint.golden.known import KNOWN
from tests.fid_factory import save_fid
from tests.t5_factory import make_t5, save_t5

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(
    r"(?:<!-- (?P<note>[^\n]*) -->\n)?```(?P<language>console|python)\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE
)
MAP = re.search(r"```yaml\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)[1]
NOT_RUN = "checked, not run: long"
ON_THE_DEVICE = "on the device"
WITH_OPTIMUM = "with optimum"
"""Run by huggingface/test_readme_optimum.py, where there is optimum."""
NOTES = (None, NOT_RUN, ON_THE_DEVICE, WITH_OPTIMUM)
GROUPS = ("memory",)
"""Commands that have commands of their own."""
ROADS = [ROOT / "docs" / "t4.md", ROOT / "docs" / "jetson.md"]
SCALE = ROOT / "docs" / "scale.md"
"""Its commands are run, after the README's."""
EXTRAS = set(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"])
TOKENIZER = ROOT / "exporter" / "demo" / "checkpoint" / "tokenizer.json"
COMMANDS = Path(sys.executable).parent


@dataclass(frozen=True)
class Step:
    """One command, or one block of Python."""

    language: str
    source: str
    runs: bool


def steps(name: str, text: str) -> list[Step]:
    found = []
    for block in BLOCK.finditer(text):
        assert block["note"] in NOTES, f"{name}: a note that means nothing: {block['note']}"
        if block["note"] in (ON_THE_DEVICE, WITH_OPTIMUM):
            continue
        if block["language"] == "python":
            found.append(Step("python", block["body"], block["note"] is None))
            continue
        for line in block["body"].splitlines():
            assert line.startswith("$ "), f"{name}: a line of a console block that is no command: {line}"
            found.append(Step("console", line[2:], block["note"] is None))
    return found


def road_commands(path: Path) -> list[str]:
    found = []
    for block in BLOCK.finditer(path.read_text(encoding="utf-8")):
        assert block["note"] in (None, ON_THE_DEVICE), f"{path.name}: a note that means nothing: {block['note']}"
        if block["language"] == "console" and block["note"] is None:
            found += [line.removeprefix("$ ") for line in block["body"].splitlines()]
    return found


STEPS = [*steps("README", README), *steps("scale.md", SCALE.read_text(encoding="utf-8"))]
CHECKED = dict.fromkeys(
    [*(step.source for step in STEPS if not step.runs), *(line for path in ROADS for line in road_commands(path))]
)


def run(command: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    # The README's reader has the environment on PATH; this process may have been started without.
    environment = {**os.environ, "PATH": f"{COMMANDS}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "200"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@cache
def help_of(*names: str) -> str:
    done = run(["glimmer-export", *names, "--help"], ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """An empty folder, but for what a reader brings: a Hugging Face T5, a FiD, a GLIMMER of T5X, and passages."""
    directory = tmp_path_factory.mktemp("readme")
    save_t5(make_t5("v1.1", vocab_size=2048, num_layers=6), directory / "t5")
    shutil.copy(TOKENIZER, directory / "t5")
    save_fid(make_t5("v1.0"), directory / "nq_reader_base")
    shutil.copytree(GOLDEN / "t5x_zarr", directory / "glimmer-t5x" / "checkpoint_1000000")
    (directory / "map.yaml").write_text("memory_encoder: passage_encoder\n", encoding="utf-8")
    (directory / "glimmer.json").write_text(KNOWN["glimmer"].model_dump_json(), encoding="utf-8")
    write_rows(directory / "new.jsonl", [{"id": 1, "title": "Changed", "text": "It was."}, {"id": "n", "text": "New."}])
    words = {f"w{number}": number for number in range(40)}
    Tokenizer(models.WordLevel(words, unk_token="w2")).save(str(directory / "tokenizer.json"))
    return directory


def test_readme_commands_run_in_order(folder):
    ran = [step for step in STEPS if step.runs]
    assert len(ran) > 5
    for step in ran:
        command = [sys.executable, "-c", step.source] if step.language == "python" else shlex.split(step.source)
        done = run(command, folder)
        assert done.returncode == 0, f"{step.source}\n{done.stdout}\n{done.stderr}"
        assert done.stdout.strip(), f"{step.source} printed nothing"


@pytest.mark.parametrize("command", CHECKED)
def test_commands_that_are_not_run_exist(command):
    words = shlex.split(command)
    if words[0] == "make":
        done = run(["make", "--dry-run", *words[1:]], ROOT)
        assert done.returncode == 0, done.stderr
    elif words[0] == "pip":
        wanted = re.fullmatch(r"\.\[(.*)\]", words[-1])[1].split(",")
        assert set(wanted) <= EXTRAS
        assert "-c" in words
        assert all((ROOT / file).is_file() for option, file in pairwise(words) if option == "-c")
    else:
        assert words[0] == "glimmer-export"
        shown = help_of(*words[1 : 3 if words[1] in GROUPS else 2])
        for option in (word for word in words if word.startswith("-")):
            assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", shown), f"no option {option}"


@pytest.mark.parametrize("path", [*ROADS, SCALE], ids=lambda path: path.stem)
def test_the_roads_code_compiles_and_their_links_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    for block in BLOCK.finditer(text):
        if block["language"] == "python":
            compile(block["body"], str(path), "exec")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if not link.startswith("http")]
    assert links
    for link in links:
        assert (path.parent / link).is_file(), link


def test_readme_shows_the_maps_defaults(tmp_path):
    (tmp_path / "map.yaml").write_text(MAP, encoding="utf-8")
    assert read_name_map(tmp_path / "map.yaml") == ENTRIES


def test_readme_names_every_extra():
    for extra in EXTRAS:
        assert f"`glimmer-export[{extra}]`" in README

