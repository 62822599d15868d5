"""What the pages say without running it: options, code, links, extras and the map of T5X's names."""

from __future__ import annotations

import re
import shlex
import subprocess
from itertools import pairwise

import pytest

from glimmer_export.exporter.checkpoint.t5x.name_map import ENTRIES, read_name_map
from tests.docs.cli_page import commands
from tests.docs.pages import CHECKED, DOCS, PAGES, ROOT, is_shown, navigation, steps, tomllib
from tests.docs.work_folder import IN_A_SHELL, demo_commands

COMMANDS = list(commands())
EXTRAS = set(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"])
GUIDE = DOCS / "guide"
STEPS = [step for page in PAGES for step in steps(page)]
NOT_RUN = list(dict.fromkeys(step.source for step in STEPS if step.language == "console" and step.note in CHECKED))
CODE = [step for step in STEPS if step.language == "python"]
SOURCE = re.compile(r"`((?:calibration|configs|exporter|runtime|tests)/[\w./-]*)`")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#[^)]*)?\)")


@pytest.mark.parametrize("command", NOT_RUN)
def test_a_command_that_is_not_run_exists(command):
    words = shlex.split(command)
    if words[0] == "make":
        done = subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    elif words[0] == "pip":
        wanted = re.fullmatch(r"\.\[(.*)\]", words[-1])[1].split(",")
        assert set(wanted) <= EXTRAS
        assert "-c" in words
        assert all((ROOT / file).is_file() for option, file in pairwise(words) if option == "-c")
    else:
        assert words[0] == "glimmer-export"
        (command,) = (each for name, each in COMMANDS if words[1:][: len(name.split())] == name.split())
        options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in words if word.startswith("-")} <= options


@pytest.mark.parametrize("step", CODE, ids=lambda step: step.page)
def test_code_compiles(step):
    compile(step.source, step.page, "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files_of_the_repository(page):
    """The site's own check is of its pages and headings alone; this one is of pictures, data and the README too."""
    targets = [target for target in LINK.findall(page.read_text(encoding="utf-8")) if target]
    assert [target for target in targets if not (page.parent / target).is_file()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_paths_of_the_source_that_a_page_names_are_there(page):
    """But for those with a part in capitals, which stands for any name."""
    named = SOURCE.findall(page.read_text(encoding="utf-8"))
    assert [path for path in named if not (ROOT / path).exists() and path == path.lower()] == []


def test_every_page_of_docs_stands_in_the_navigation():
    assert {*navigation()} == {*DOCS.rglob("*.md")}


def test_the_guide_shows_the_maps_defaults(tmp_path):
    text = (GUIDE / "convert.md").read_text(encoding="utf-8")
    shown = re.search(r"```yaml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)[1]
    (tmp_path / "map.yaml").write_text(shown, encoding="utf-8")
    assert read_name_map(tmp_path / "map.yaml") == ENTRIES


def test_the_guide_names_every_extra():
    text = (GUIDE / "install.md").read_text(encoding="utf-8")
    assert {extra for extra in EXTRAS if f"`glimmer-export[{extra}]`" not in text} == set()


def test_make_demo_asks_three_questions_at_its_end():
    assert [command.split()[1] for command in demo_commands()][-3:] == ["ask"] * 3


def test_what_a_reader_does_in_a_shell_is_little():
    assert {*IN_A_SHELL} <= {step.source for step in steps(ROOT / "README.md")}


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a  b\n", "a b\n", True),
        ("took ... ms\n", "took 12.5 ms\n", True),
        ("took ... ms\n", "took 12.5 s\n", False),
        ("first\n...\nlast\n", "first\nlast\n", True),
        ("first\n...\nlast\n", "first\nsecond\nthird\nlast\n", True),
        ("first\n", "first\nsecond\n", False),
        ("first\n...\n", "second\n", False),
        ("┏━━━┳━━┓\n", "┏━━━━━┳━━━━┓\n", True),
        ("a.b\n", "aXb\n", False),
    ],
)
def test_elisions(shown, printed, same):
    assert is_shown(shown, printed) is same


@pytest.mark.parametrize("target", [path.stem for path in sorted((ROOT / "configs" / "targets").glob("*.yaml"))])
def test_the_guide_names_every_target(target):
    assert f"`{target}`" in (GUIDE / "tensorrt.md").read_text(encoding="utf-8")
