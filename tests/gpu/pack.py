"""What a GPU machine without a network lacks, in one file under a size limit: `python -m tests.gpu.pack -o FOLDER`.

TensorRT-RTX, Polygraphy and pydantic, from pip's own downloads, for the Python that runs there. The library alone is
220 MB; xz with its filter for x86 code makes a quarter of it. `unpack.py` is the other end.
"""

from __future__ import annotations

import argparse
import io
import lzma
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

__all__ = ["ARCHIVE", "LIMIT_BYTES", "download", "pack"]

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
"""The versions that are tested together."""
WHEELS = (
    "tensorrt-rtx-cu12-libs", "tensorrt-rtx-cu12-bindings", "polygraphy", "pydantic", "pydantic-core",
    "annotated-types", "typing-inspection",
)  # fmt: skip
RTX = "tensorrt-rtx-cu12"
"""The module `tensorrt_rtx` itself, which imports the bindings. It comes as a source archive."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
FILTERS = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 28}]
ARCHIVE = "site.tar.xz"
LIMIT_BYTES = 64 << 20


def download(folder: Path, python: str) -> list[Path]:
    """The wheels for a version of CPython, such as "3.12", on Linux and x86-64."""
    pip = [sys.executable, "-m", "pip", "-q"]
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    exact = ["--no-deps", "-c", str(CONSTRAINTS)]
    binary = ["--only-binary=:all:", "--implementation", "cp", "--python-version", python, *platforms]
    subprocess.run([*pip, "download", *exact, *binary, "-d", str(folder), *WHEELS], check=True)
    subprocess.run([*pip, "wheel", *exact, "--no-build-isolation", "-w", str(folder), RTX], check=True)
    return sorted(folder.glob("*.whl"))


def pack(wheels: list[Path], archive: Path) -> int:
    """Write the files of all wheels, as they stand in a site-packages, into one archive; its size in bytes."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with lzma.open(archive, "w", filters=FILTERS) as stream, tarfile.open(fileobj=stream, mode="w") as tar:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as content:
                for name in sorted(content.namelist()):
                    if not name.endswith("/"):
                        data = content.read(name)
                        entry = tarfile.TarInfo(name)
                        entry.size = len(data)
                        tar.addfile(entry, io.BytesIO(data))
    return archive.stat().st_size


def main() -> int:
    """Download, pack and say how much room is left for the repository."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write into")
    parser.add_argument("--python", default="3.12", help="the version of Python that is to unpack it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        size = pack(download(Path(folder), options.python), options.output / ARCHIVE)
    sys.stdout.write(f"{options.output / ARCHIVE}: {size:,} bytes, {LIMIT_BYTES - size:,} left of {LIMIT_BYTES:,}\n")
    return 0 if size < LIMIT_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
