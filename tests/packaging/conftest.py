"""The wheel, and virtual environments made of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.packaging.uv_command import uv_command, uv_environment

ROOT = Path(__file__).resolve().parents[2]
OLDEST = (3, 10)


@dataclass(frozen=True)
class Venv:
    """A virtual environment outside the source tree."""

    directory: Path

    @classmethod
    def create(cls, python: Path, directory: Path, wheel: Path, extras: str) -> Venv:
        """Install the wheel with these extras, at the constraints' versions; what an earlier run fetched is linked."""
        _run([*uv_command("venv"), "--python", python, directory], cwd=wheel.parent)
        venv = cls(directory)
        requirement = f"glimmer-export[{extras}] @ {wheel.as_uri()}"
        install = [*uv_command("pip", "install"), "--python", venv.program("python")]
        _run([*install, "-c", ROOT / "constraints.txt", requirement], cwd=directory)
        return venv

    def program(self, name: str) -> Path:
        return self.directory / "bin" / name

    def python(self, script: str, *arguments: object) -> str:
        """Run a script there, isolated from this process's paths and folder; returns what it prints."""
        return _run([self.program("python"), "-I", "-c", script, *map(str, arguments)], cwd=self.directory)

    def glimmer(self, *arguments: object) -> str:
        """Run the command there; returns what it prints."""
        return _run([self.program("glimmer-export"), *map(str, arguments)], cwd=self.directory)


def _run(command: list[str | Path], cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, env=uv_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}", pytrace=False)
    return done.stdout


@pytest.fixture(scope="session")
def wheel(once) -> Path:
    def build(directory: Path) -> None:
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", directory, ROOT]
        _run(command, cwd=directory)

    (built,) = once("wheel", build).glob("*.whl")
    return built


@pytest.fixture(scope="session", params=["this Python", "Python 3.10"])
def device_python(request) -> Path:
    """A Python that a device may have."""
    return Path(sys.executable) if request.param == "this Python" else oldest_python()


@pytest.fixture(scope="session")
def runtime_venv(device_python, wheel, tmp_path_factory) -> Venv:
    """What a device needs to answer, and nothing else."""
    return Venv.create(device_python, tmp_path_factory.mktemp("runtime") / "venv", wheel, "cpu")


@pytest.fixture(scope="session")
def tools_venv(device_python, wheel, tmp_path_factory) -> Venv:
    """The same, with the command line."""
    return Venv.create(device_python, tmp_path_factory.mktemp("tools") / "venv", wheel, "cpu,tools")


def oldest_python() -> Path:
    """A Python 3.10 that runs; skips the test where there is none, or where it is the one that runs the tests."""
    name = "python{}.{}".format(*OLDEST)
    if sys.version_info[:2] == OLDEST:
        pytest.skip(f"the tests themselves run on {name}")
    found = [Path(path) for path in (shutil.which(name),) if path]
    # pyenv puts a stub on PATH for versions that are installed but not selected; the real ones lie below its root.
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found += sorted(pyenv.glob(f"versions/{OLDEST[0]}.{OLDEST[1]}.*/bin/{name}"))
    for path in found:
        if subprocess.run([path, "-c", "import venv"], capture_output=True, check=False).returncode == 0:
            return path
    pytest.skip(f"no {name} that runs was found")
