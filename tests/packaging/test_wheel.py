"""What the wheel holds."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from email import message_from_string
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.optimum_line import needs_optimum

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"exporter", "calibration", "runtime"}
REGISTRATION = "optimum/commands/register/register_glimmer_export.py"

OPTIMUM_CLI = """
import sys
from pathlib import Path
site, optimum = sys.argv[1:3]
elsewhere = [path for path in sys.path if not (Path(path) / "exporter").is_dir()]
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


def test_exactly_three_packages_and_one_file(names):
    others = {name for name in names if name.split("/")[0] not in PACKAGES}
    assert {name for name in others if not name.split("/")[0].endswith(".dist-info")} == {REGISTRATION}
    assert len({name.split("/")[0] for name in names}) == len(PACKAGES | {"optimum", ".dist-info"})


@needs_optimum
@pytest.mark.parametrize("further", [[], [ROOT]], ids=["alone", "beside a source tree"])
def test_optimum_finds_our_command_where_the_wheel_is_installed(wheel, tmp_path, further):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    optimum = Path(find_spec("optimum.version").origin).parents[1]
    command = [sys.executable, "-I", "-c", OPTIMUM_CLI, tmp_path, optimum, *further]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "CHECKPOINT" in done.stdout


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_every_module_travels(names, package):
    modules = {f"{package}/{name}" for name in files_below(ROOT / package) if name.endswith(".py")}
    assert f"{package}/__init__.py" in modules
    assert modules <= names


def test_configs_travel_as_data_of_the_exporter(names):
    configs = {f"exporter/configs/{name}" for name in files_below(ROOT / "configs")}
    assert {f"exporter/configs/models/{size}.yaml" for size in ("small", "base", "large", "xl", "xxl")} <= configs
    assert configs <= names


def test_demo_checkpoint_travels(names):
    files = {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    }
    assert {f"exporter/demo/checkpoint/{name}" for name in files} <= names


def test_nothing_else_travels(names):
    for name in names:
        assert "test" not in name.split("/")[0]
        assert name.endswith((".py", ".yaml", ".json", ".safetensors")) or ".dist-info/" in name, name


def test_licence_and_base_dependencies(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (metadata_name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        assert metadata_name.replace("METADATA", "licenses/LICENSE") in archive.namelist()
        metadata = message_from_string(archive.read(metadata_name).decode())
    assert metadata["License-Expression"] == "Apache-2.0"
    base = {line.split("<")[0].split(">")[0] for line in metadata.get_all("Requires-Dist") if "extra ==" not in line}
    assert base == {"numpy", "safetensors", "tokenizers"}
