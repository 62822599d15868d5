"""The documents' install lines, and what each installs on the machines that it is for.

pip would evaluate the markers of the Python that runs it; uv takes any machine's, and reads metadata alone.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.packaging.uv_command import uv_command, uv_environment

__all__ = ["FROM_NVIDIA", "LINES", "ROOT", "InstallLine", "Machine", "pinned", "resolve"]

ROOT = Path(__file__).resolve().parents[2]
LINE = re.compile(r"^\$ (?P<pip>(?:\S*/)?pip) install (?P<words>.*)$", re.MULTILINE)
ON_THE_JETSON = "venv/bin/pip"

FROM_NVIDIA = ("tensorrt-cu12-libs", "tensorrt-cu13-libs")
"""Placeholders, which ask NVIDIA's own index for the wheel of their name; what they need is stated below instead."""
STATED = """
[[dependency-metadata]]
name = "tensorrt-cu12"
requires-dist = ["tensorrt-cu12-libs", "tensorrt-cu12-bindings"]

[[dependency-metadata]]
name = "tensorrt-cu13"
requires-dist = ["tensorrt-cu13-libs", "tensorrt-cu13-bindings"]

[[dependency-metadata]]
name = "tensorrt-cu12-libs"
requires-dist = ["cuda-toolkit[cudart]>=12,<13"]

[[dependency-metadata]]
name = "tensorrt-cu13-libs"
requires-dist = []
"""
"""As their source archives say, and that of the first placeholder's 10.13: nothing is built to be asked."""


@dataclass(frozen=True)
class Machine:
    """What markers and wheels are chosen by: a Python, and a platform as uv names it."""

    python: str
    platform: str

    def __str__(self) -> str:
        return f"{self.python} {self.platform}"


SERVERS = (Machine("3.10", "x86_64-manylinux_2_28"), Machine("3.12", "x86_64-manylinux_2_28"))
JETPACKS = {
    "gpu-cu12": Machine("3.10", "aarch64-manylinux_2_35"), "gpu-cu13": Machine("3.12", "aarch64-manylinux_2_39"),
}  # fmt: skip
"""JetPack 6.2 is Ubuntu 22.04, 7.2 is 24.04."""


@dataclass(frozen=True)
class InstallLine:
    """One line, for one machine."""

    words: str
    machine: Machine

    def __str__(self) -> str:
        return f"{self.words} on {self.machine}"

    @property
    def constraints(self) -> list[str]:
        """The files after -c."""
        words = shlex.split(self.words)
        return [file for option, file in pairwise(words) if option == "-c"]

    @property
    def extras(self) -> list[str]:
        """Those of this project."""
        return re.search(r"\.\[(.*?)\]", self.words)[1].split(",")


def _lines() -> list[InstallLine]:
    found = []
    for document in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for line in LINE.finditer(document.read_text(encoding="utf-8")):
            machines = SERVERS
            if line["pip"] == ON_THE_JETSON:
                (extra,) = {*JETPACKS} & {*InstallLine(line["words"], SERVERS[0]).extras}
                machines = (JETPACKS[extra],)
            found += [InstallLine(line["words"], machine) for machine in machines]
    return [*dict.fromkeys(found)]


LINES = _lines()


@cache
def resolve(line: InstallLine, config: Path) -> dict[str, str]:
    """The version of each package that a line installs; raises ValueError with uv's reason where nothing fits.

    `config` is a file that this may write.
    """
    config.write_text(STATED, encoding="utf-8")
    words = shlex.split(line.words)
    requirements = [word for before, word in pairwise(["", *words]) if "-c" not in (before, word)]
    machine = ("--python-version", line.machine.python, "--python-platform", line.machine.platform)
    constraints = (word for file in line.constraints for word in ("-c", file))
    command = [*uv_command("pip", "compile"), "--no-header", "--no-annotate", "--config-file", config]
    command += ["--python", sys.executable, *machine, *constraints, "-"]
    done = subprocess.run(
        command, cwd=ROOT, env=uv_environment(), input="\n".join(requirements), capture_output=True, text=True,
        check=False,
    )
    if done.returncode:
        raise ValueError(f"pip install {line}\n{done.stderr}")
    pins = (line.partition(" ")[0].split("==") for line in done.stdout.splitlines() if "==" in line)
    return {canonicalize_name(name): version for name, version in pins}


def pinned(file: Path) -> set[str]:
    """The packages that a constraints file names."""
    lines = (line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    return {canonicalize_name(Requirement(line).name) for line in lines if line}
