"""Writes wheel_libraries.json: the shared libraries of each wheel that the extras for GPUs install, and what they need.

    python -m tests.packaging.record_libraries --wheels FOLDER

Downloads some 4 GB into the folder, what is there already aside, and needs readelf. To be run again where a constraints
file of a line of CUDA, or an extra, has changed: the test beside this says so.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from packaging.utils import parse_wheel_filename

from tests.packaging.install_lines import FROM_NVIDIA, LINES, ROOT, InstallLine, pinned, resolve

RECORD = Path(__file__).with_name("wheel_libraries.json")
SHARED = re.compile(r"\.so(\.\d+)*$")
ENTRY = re.compile(r"\((NEEDED|SONAME)\).*\[(.*)\]")
SYSTEM = re.compile(r"(lib(c|m|z|dl|rt|pthread|gcc_s|stdc\+\+)|ld-linux-[\w-]+)\.so\.\d+")
"""What every Linux that the wheels name has, and is not recorded."""


def gpu_wheels() -> Iterator[tuple[InstallLine, str, str]]:
    """The packages of the lines of CUDA, with their versions, by the install line that brings them."""
    for line in LINES:
        files = [file for file in line.constraints if "-cu" in file]
        if files:
            with tempfile.TemporaryDirectory() as folder:
                found = resolve(line, Path(folder) / "uv.toml")
            yield from ((line, name, found[name]) for name in sorted(found.keys() & pinned(ROOT / files[0])))


def wheel_of(line: InstallLine, name: str, version: str, wheels: list[str]) -> str | None:
    """The one of these wheel files that fits, None where there is none."""
    python, arch = "cp" + line.machine.python.replace(".", ""), line.machine.platform.partition("-")[0]
    for wheel in wheels:
        found, number, _, tags = parse_wheel_filename(wheel)
        fits = any(tag.interpreter in (python, "py3", "py2") and tag.platform.endswith((arch, "any")) for tag in tags)
        if (found, str(number)) == (name, version) and fits:
            return wheel
    return None


def download(line: InstallLine, name: str, version: str, folder: Path) -> None:
    """One wheel into the folder; raises CalledProcessError where there is none."""
    machine, _, newest = line.machine.platform.partition("-manylinux_2_")
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(int(newest), 4, -1)] + [f"manylinux2014_{machine}"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--implementation", "cp", "--python-version", line.machine.python]
    command += [word for tag in tags for word in ("--platform", tag)]
    subprocess.run([*command, "--dest", str(folder), f"{name}=={version}"], check=True)


def libraries(wheel: Path) -> dict[str, list[str]]:
    """What each shared library in a wheel needs, less the system's, by the name that others need it by."""
    found = {}
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        for name in sorted(name for name in archive.namelist() if SHARED.search(name)):
            copy = Path(folder) / Path(name).name
            with archive.open(name) as source, copy.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
            shown = subprocess.run(["readelf", "-d", copy], capture_output=True, text=True, check=True).stdout
            copy.unlink()
            entries = ENTRY.findall(shown)
            needed = sorted(value for kind, value in entries if kind == "NEEDED" and not SYSTEM.fullmatch(value))
            soname = next((value for kind, value in entries if kind == "SONAME"), copy.name)
            if needed or "cpython" not in soname:
                found[soname] = needed
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheels", type=Path, required=True, help="a folder for what is downloaded")
    folder = parser.parse_args().wheels
    folder.mkdir(parents=True, exist_ok=True)
    record: dict[str, dict[str, list[str]]] = {}
    for line, name, version in gpu_wheels():
        if name in FROM_NVIDIA or f"{name}-libs" in FROM_NVIDIA:
            continue
        here = [path.name for path in folder.glob("*.whl")]
        if wheel_of(line, name, version, here) is None:
            download(line, name, version, folder)
            here = [path.name for path in folder.glob("*.whl")]
        wheel = wheel_of(line, name, version, here)
        assert wheel is not None, f"{name} {version}: none for {line.machine}"
        if wheel not in record:
            record[wheel] = libraries(folder / wheel)
    RECORD.write_text(json.dumps(dict(sorted(record.items())), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
