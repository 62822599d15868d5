"""The wheel, built once, and virtual environments made of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OLDEST = (3, 10)


@dataclass(frozen=True)
class Venv:
    """A virtual environment outside the source tree."""

    python: Path

    def run(self, script: str, *arguments: object) -> str:
        """Run a script there, isolated from this process's paths and folder; returns what it prints."""
        return _run([self.python, "-I", "-c", script, *map(str, arguments)], cwd=self.python.parent)


def _run(command: list[str | Path], cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}", pytrace=False)
    return done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    _run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", directory, ROOT], cwd=directory)
    (built,) = directory.glob("*.whl")
    return built


@pytest.fixture(scope="session", params=["this Python", "Python 3.10"])
def runtime_venv(
    request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Venv:
    """What a device installs, glimmer-export[cpu], and nothing else."""
    python = Path(sys.executable) if request.param == "this Python" else oldest_python()
    directory = tmp_path_factory.mktemp("runtime") / "venv"
    _run([python, "-m", "venv", directory], cwd=wheel.parent)
    venv = Venv(directory / "bin" / "python")
    install = [venv.python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt"]
    _run([*install, f"glimmer-export[cpu] @ {wheel.as_uri()}"], cwd=wheel.parent)
    return venv


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
        if subprocess.run([path, "-c", "import ensurepip, venv"], capture_output=True, check=False).returncode == 0:
            return path
    pytest.skip(f"no {name} that runs was found")
