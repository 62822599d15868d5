"""What the wheel holds."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import zipfile
from email import message_from_string
from importlib.util import find_spec
from pathlib import Path

import pytest

from glimmer_export.exporter.cli.optimum_register import REGISTRATION
from tests.optimum_line import needs_optimum
from tests.packaging.conftest import Venv
from tests.packaging.uv_command import uv_command, uv_environment

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"exporter", "calibration", "runtime"}
TYPED = """
from pathlib import Path
from typing import TYPE_CHECKING

from glimmer_export import Answer, Passage, QuestionError, Session, __version__


def ask(bundle: Path, store: Path, question: str) -> list[Passage]:
    with Session.open(bundle, store=store) as session:
        try:
            answer: Answer = session.answer(question)
        except QuestionError as error:
            raise SystemExit(f"{__version__}: {error.expected}") from error
    if TYPE_CHECKING:
        reveal_type(answer.answer)
    return [ranked.passage for ranked in answer.passages]
"""

OPTIMUM_CLI = """
import sys
from pathlib import Path
site, optimum = sys.argv[1:3]
elsewhere = [path for path in sys.path if not (Path(path) / "glimmer_export").is_dir()]
sys.path[:] = [site, optimum, *elsewhere, *sys.argv[3:]]
sys.argv[1:] = ["export", "glimmer", "--help"]
from glimmer_export import exporter
from optimum.commands.optimum_cli import main
assert exporter.__file__.startswith(site)
main()
"""


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def files_below(directory: Path) -> set[str]:
    return {
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_exactly_one_package(names):
    tops = {name.split("/")[0] for name in names}
    assert {name for name in tops if not name.endswith(".dist-info")} == {"glimmer_export"}
    assert len(tops) == len({"glimmer_export", ".dist-info"})


@needs_optimum
@pytest.mark.parametrize("further", [[], [ROOT]], ids=["alone", "beside a source tree"])
def test_optimum_finds_our_command_where_the_wheel_is_installed(wheel, tmp_path, further):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    registered = tmp_path / "optimum" / "commands" / "register"
    registered.mkdir(parents=True)
    (registered / "register_glimmer_export.py").write_text(REGISTRATION, encoding="utf-8")
    optimum = Path(find_spec("optimum.version").origin).parents[1]
    command = [sys.executable, "-I", "-c", OPTIMUM_CLI, tmp_path, optimum, *further]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "CHECKPOINT" in done.stdout


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_every_module_travels(names, package):
    modules = {f"glimmer_export/{package}/{name}" for name in files_below(ROOT / package) if name.endswith(".py")}
    assert f"glimmer_export/{package}/__init__.py" in modules
    assert modules <= names


def test_configs_travel_as_data_of_the_exporter(names):
    configs = {f"glimmer_export/exporter/configs/{name}" for name in files_below(ROOT / "configs")}
    sizes = ("small", "base", "large", "xl", "xxl")
    assert {f"glimmer_export/exporter/configs/models/{size}.yaml" for size in sizes} <= configs
    assert configs <= names


@pytest.mark.parametrize("folder", ["checkpoint", "hard_checkpoint"])
def test_demo_checkpoints_travel(names, folder):
    files = {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    }
    assert {f"glimmer_export/exporter/demo/{folder}/{name}" for name in files} <= names


def test_the_page_of_reports_travels(names):
    assert "glimmer_export/exporter/report/page.html" in names


def test_the_page_of_the_server_travels(names):
    static = files_below(ROOT / "runtime" / "serving" / "static")
    assert {"index.html", "page.css", "page.js"} < static
    assert {f"glimmer_export/runtime/serving/static/{name}" for name in static} <= names


def test_nothing_else_travels(names):
    kinds = (".css", ".html", ".js", ".json", ".py", ".safetensors", ".svg", ".typed", ".yaml")
    for name in names:
        assert "test" not in name.split("/")[0]
        assert name.endswith(kinds) or ".dist-info/" in name, name


def test_licence_and_base_dependencies(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (metadata_name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        assert metadata_name.replace("METADATA", "licenses/LICENSE") in archive.namelist()
        metadata = message_from_string(archive.read(metadata_name).decode())
    assert metadata["License-Expression"] == "Apache-2.0"
    base = {line.split("<")[0].split(">")[0] for line in metadata.get_all("Requires-Dist") if "extra ==" not in line}
    assert base == {"numpy", "safetensors", "tokenizers"}


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_of_the_source_archive_is_the_same(wheel, tmp_path):
    command = [*uv_command("build"), "--python", sys.executable, "--out-dir", tmp_path, ROOT]
    built = subprocess.run(command, env=uv_environment(), capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (from_archive,) = tmp_path.glob("*.whl")
    assert contents(from_archive) == contents(wheel)


def test_no_link_travels(wheel):
    with zipfile.ZipFile(wheel) as archive:
        assert [entry.filename for entry in archive.infolist() if stat.S_ISLNK(entry.external_attr >> 16)] == []


def test_the_wheel_is_typed_and_minds_no_folder_of_the_users(wheel, tmp_path):
    """A program's types are seen by mypy, beside folders of the user's own that have our folders' names."""
    venv = Venv.create(Path(sys.executable), tmp_path / "venv", wheel, "cpu,tools")
    for name in PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('not ours')\n", encoding="utf-8")
    program = tmp_path / "program.py"
    program.write_text(TYPED, encoding="utf-8")
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", venv.program("python"), program.name]
    checked = subprocess.run(mypy, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    assert 'Revealed type is "str | None"' in checked.stdout
    for command in ([venv.program("glimmer-export"), "--help"], [venv.program("python"), "-c", "import program"]):
        done = subprocess.run(
            command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": "."}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
