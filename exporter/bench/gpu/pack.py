"""What a GPU machine without a network lacks, in parts that can each be carried with the repository.

    python -m glimmer_export.exporter.bench.gpu.pack -o .gpu           # .gpu/part-1 and so on; quickly, when run again
    python exporter/bench/gpu/unpack.py .gpu/part-1 /tmp/carried    # there, in the call that part-1 was carried with

From pip's own downloads, for the Python that runs there. xz with its filter for x86 code makes a quarter of the big
libraries, and the code for GPUs is pruned to one architecture (fatbin.py). That code is zstd's of each source file:
unpacked it compresses to half of that, so it is carried unpacked where packing it again gives the same bytes.
"""

from __future__ import annotations

import argparse
import io
import json
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import accumulate
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from glimmer_export.exporter.bench.gpu.fatbin import Entry, prune
from glimmer_export.exporter.bench.gpu.unpack import CUBINS, INDEX, LEVEL, TABLE, digest, zstd

__all__ = ["ARCHIVES", "LIMIT_BYTES", "Archive", "cut", "download", "pack", "recipe", "room_bytes", "tree_bytes"]

ROOT = Path(__file__).resolve().parents[3]
CONSTRAINTS = [ROOT / "constraints.txt", ROOT / "constraints-cu13.txt"]
"""The versions that are tested together."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
FILTERS = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 28}]
LIMIT_BYTES = 64 << 20
"""What can be carried at once: the repository's files and one part."""
SPARE_BYTES = 2 << 20
"""For what wraps the files on their way, and for what is committed between packing and carrying."""
ZSTD = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True)
class Archive:
    """A folder of packages: `wheels` by name, `sources` that pip builds, less the files that patterns `without` name.

    Libraries that `pruned` names keep the code of one GPU architecture; `alone` says whether that of source files that
    were compiled for it and no other is among it.
    """

    name: str
    wheels: tuple[str, ...]
    sources: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    pruned: tuple[str, ...] = ()
    alone: bool = True


ARCHIVES = (
    Archive(
        "site",
        ("backports-zstd", "polygraphy", "pydantic", "pydantic-core", "annotated-types", "typing-extensions",
         "typing-inspection"),
    ),
    # In a folder of its own, as it stands in the way of the CPU's. Its library for C is a second copy of Python's, and
    # its TensorRT provider needs a TensorRT that is not carried. What is for Hopper alone, more than half of Hopper's
    # code, are products for mixtures of experts and the like: operators of Microsoft's own, which our graphs have not.
    Archive(
        "onnxruntime", ("onnxruntime-gpu",), without=("*/libonnxruntime.so*", "*/libonnxruntime_providers_tensorrt.so"),
        pruned=("*/libonnxruntime_providers_cuda.so",), alone=False,
    ),
    # The module `tensorrt_rtx` itself, which imports the bindings, comes as a source archive.
    Archive(
        "rtx", ("tensorrt-rtx-cu12-libs", "tensorrt-rtx-cu12-bindings"), ("tensorrt-rtx-cu12",),
        pruned=("*/libtensorrt_rtx.so.1",),
    ),
)  # fmt: skip
"""In the order in which they are carried: what is needed first, and what is most likely to run, first."""


def download(archive: Archive, folder: Path, python: str) -> list[Path]:
    """The wheels for a version of CPython, such as "3.12", on Linux and x86-64."""
    pip = [sys.executable, "-m", "pip", "-q"]
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    exact = ["--no-deps", *(word for path in CONSTRAINTS for word in ("-c", str(path)))]
    binary = ["--only-binary=:all:", "--implementation", "cp", "--python-version", python, *platforms]
    subprocess.run([*pip, "download", *exact, *binary, "-d", str(folder), *archive.wheels], check=True)
    if archive.sources:
        subprocess.run([*pip, "wheel", *exact, "--no-build-isolation", "-w", str(folder), *archive.sources], check=True)
    return sorted(folder.glob("*.whl"))


def pack(archive: Archive, wheels: list[Path], path: Path, architecture: int) -> int:
    """Write the files of all wheels, as they stand in a site-packages, into one archive; its size in bytes.

    Its folder has no such file before it is whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    with lzma.open(partial, "w", filters=FILTERS) as stream, tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in _files(archive, wheels):
            for member, content in _thinned(name, data, archive, architecture):
                entry = tarfile.TarInfo(member)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    partial.rename(path)
    return path.stat().st_size


def recipe(archive: Archive, python: str, architecture: int) -> str:
    """Eight digits that are others where an archive would be: by its description, the versions and what it is for."""
    pins = sorted({str(pin) for pin in _pins(python) if pin.name in archive.wheels + archive.sources})
    return digest(repr((archive, pins, python, architecture, FILTERS)).encode())[:8]


def tree_bytes(root: Path) -> int:
    """Of the files that travel with the repository: all that git tracks, and what it would."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=root, check=True,
        capture_output=True,
    )  # fmt: skip
    paths = {root / name for name in listed.stdout.decode().split("\0") if name}
    return sum(path.lstat().st_size for path in paths if path.is_symlink() or path.exists())


def room_bytes(root: Path) -> int:
    """What a part may have beside the repository as it is."""
    return LIMIT_BYTES - SPARE_BYTES - tree_bytes(root)


def cut(archives: dict[str, Path], folder: Path, room: int) -> list[Path]:
    """Lay archives one after the other and cut them into `folder/part-1` and so on, of at most `room` bytes each.

    Parts that are there already are replaced. Every part has the index of all. ValueError if there is no room.
    """
    index: list[dict[str, Any]] = [
        {"name": name, "sha256": digest(path.read_bytes()), "pieces": []} for name, path in archives.items()
    ]
    # As long as the index can become: a file and a part of each piece, of which there is one more for each cut.
    most = len(json.dumps(index)) + 100 * (len(archives) + sum(map(_size, archives.values())) // max(room, 1) + 1)
    if room <= 2 * most:
        raise ValueError(f"{room:,} bytes beside the repository hold no part: make it smaller")
    for part in folder.glob("part-*"):
        shutil.rmtree(part)
    number, left = 1, room - most
    for described, path in zip(index, archives.values(), strict=True):
        content, start = memoryview(path.read_bytes()), 0
        while start < len(content):
            if not left:
                number, left = number + 1, room - most
            piece = content[start : start + left]
            file = folder / f"part-{number}" / f"{described['name']}.{len(described['pieces']) + 1}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(piece)
            described["pieces"].append({"file": file.name, "part": number})
            start, left = start + len(piece), left - len(piece)
    parts = [folder / f"part-{each}" for each in range(1, number + 1)]
    for part in parts:
        (part / INDEX).write_text(json.dumps(index), encoding="utf-8")
    return parts


def main() -> int:
    """Download and pack what is not there, cut it, and say how large all of it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write into, which git ignores")
    parser.add_argument("--python", default="3.12", help="the version that unpacks it (default: %(default)s)")
    parser.add_argument("--sm", type=int, default=90, help="architecture of the GPU (default: %(default)s)")
    options = parser.parse_args()
    archives = {}
    for archive in ARCHIVES:
        path = options.output / "archives" / f"{archive.name}-{recipe(archive, options.python, options.sm)}.tar.xz"
        if not path.is_file():
            with tempfile.TemporaryDirectory() as folder:
                pack(archive, download(archive, Path(folder), options.python), path, options.sm)
        archives[archive.name] = path
        sys.stdout.write(f"{path}: {_size(path):,} bytes\n")
    tree, room = tree_bytes(ROOT), room_bytes(ROOT)
    sys.stdout.write(f"repository: {tree:,} bytes of {LIMIT_BYTES:,}; a part has room for {room:,}\n")
    for part in cut(archives, options.output, room):
        size = sum(map(_size, part.iterdir()))
        sys.stdout.write(f"{part}: {size:,} bytes, {tree + size:,} with the repository\n")
    return 0


def _pins(python: str) -> Iterator[Requirement]:
    """What the constraints say of a version of Python on Linux and x86-64, without the condition."""
    machine = {"python_version": python, "platform_machine": "x86_64", "platform_system": "Linux"}
    for path in CONSTRAINTS:
        for line in path.read_text(encoding="utf-8").splitlines():
            if text := line.partition("#")[0].strip():
                pin = Requirement(text)
                if pin.marker is None or pin.marker.evaluate(machine):
                    pin.marker = None
                    yield pin


def _files(archive: Archive, wheels: list[Path]) -> Iterator[tuple[str, bytes]]:
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as content:
            for name in sorted(content.namelist()):
                if not name.endswith("/") and not _named(name, archive.without):
                    yield name, content.read(name)


def _named(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _thinned(name: str, data: bytes, archive: Archive, architecture: int) -> Iterator[tuple[str, bytes]]:
    """The file; of a pruned library the code stands beside it, unpacked, if it can, and unpack.py puts it back."""
    if not _named(name, archive.pruned):
        yield name, data
        return
    library = bytearray(data)
    kept = prune(library, architecture, alone=archive.alone)
    table: dict[str, object] = {"sha256": digest(library)}
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        codes = threads.map(lambda entry: _unpacked(library, entry), kept)
        out = [(entry, code) for entry, code in zip(kept, codes, strict=True) if code is not None]
    for entry, _ in out:
        library[entry.offset : entry.offset + entry.packed] = bytes(entry.packed)
    ends = list(accumulate(len(code) for _, code in out))
    table["cubins"] = [(entry.offset, end - len(code), end) for (entry, code), end in zip(out, ends, strict=True)]
    yield name, bytes(library)
    if out:
        yield name + CUBINS, b"".join(code for _, code in out)
        yield name + TABLE, json.dumps(table).encode()


def _unpacked(library: bytearray, entry: Entry) -> bytes | None:
    """An entry's code, where packing it again gives the very bytes that stand there."""
    packed = bytes(library[entry.offset : entry.offset + entry.packed])
    if not entry.unpacked or not packed.startswith(ZSTD):
        return None
    code: bytes = zstd().decompress(packed)
    return code if zstd().compress(code, LEVEL) == packed else None


def _size(path: Path) -> int:
    return path.stat().st_size


if __name__ == "__main__":
    sys.exit(main())
