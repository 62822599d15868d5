"""Unpack one part of what pack.py made, each as it arrives: `python exporter/bench/gpu/unpack.py .gpu/part-1 FOLDER`.

FOLDER lies outside the repository, as what is not carried the next time is removed there. An archive is unpacked to
`FOLDER/ARCHIVE` as soon as all its pieces came; a folder that is there already is left as it is. Then FOLDER/site and
the like go into PYTHONPATH. This file needs the standard library alone, and what it unpacked itself.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

__all__ = ["CUBINS", "INDEX", "LEVEL", "TABLE", "digest", "put_back", "unpack", "zstd"]

INDEX = "index.json"
"""In each part: the archives in order, each with its name, digest and pieces, and a piece with its file and part."""
CUBINS, TABLE = ".cubins", ".cubins.json"
"""Beside a library: its code for GPUs, unpacked, and where that belongs."""
LEVEL = 19
"""At which CUDA's compiler packs code with zstd, so that packing it again gives the same bytes."""


def unpack(part: Path, folder: Path) -> list[str]:
    """Take a part's pieces and unpack what is whole then; says what became of each archive.

    ValueError if an archive is not what was packed: then nothing of it is in the folder but the pieces of others.
    """
    pieces = folder / "pieces"
    pieces.mkdir(parents=True, exist_ok=True)
    said = []
    for archive in json.loads((part / INDEX).read_text(encoding="utf-8")):
        name, target = archive["name"], folder / archive["name"]
        if target.exists():
            said.append(f"{name}: is there")
            continue
        for piece in archive["pieces"]:
            if (part / piece["file"]).is_file():
                shutil.copyfile(part / piece["file"], pieces / piece["file"])
        missing = sorted({piece["part"] for piece in archive["pieces"] if not (pieces / piece["file"]).is_file()})
        if missing:
            said.append(f"{name}: needs part {', '.join(map(str, missing))}")
            continue
        _unpack_archive(archive, pieces, target)
        said.append(f"{name}: unpacked to {target}")
    return said


def put_back(folder: Path) -> None:
    """Pack the cubins that lie beside libraries into their places; ValueError if a library is not the same then."""
    for table in sorted(folder.rglob(f"*{TABLE}")):
        library = table.with_name(table.name.removesuffix(TABLE))
        cubins = library.with_name(library.name + CUBINS)
        facts = json.loads(table.read_text(encoding="utf-8"))
        content, codes = bytearray(library.read_bytes()), memoryview(cubins.read_bytes())
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:  # zstd lets others run while it packs
            unpacked = [codes[start:end] for _, start, end in facts["cubins"]]
            packed = threads.map(lambda code: zstd().compress(code, LEVEL), unpacked)
            for (offset, _, _), code in zip(facts["cubins"], packed, strict=True):
                content[offset : offset + len(code)] = code
        if digest(content) != facts["sha256"]:
            raise ValueError(f"{library.name}: its code was packed otherwise here")
        library.write_bytes(content)
        cubins.unlink()
        table.unlink()


def digest(content: bytes | bytearray) -> str:
    """Of a file, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def zstd() -> Any:
    """Python's own module from 3.14 on, the same in a package before, which may have been unpacked just now."""
    importlib.invalidate_caches()
    return importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")


def _unpack_archive(archive: dict[str, Any], pieces: Path, target: Path) -> None:
    """Join, check and unpack beside the target, then rename, so that a folder is whole or not there."""
    joined = pieces / archive["name"]
    files = [pieces / piece["file"] for piece in archive["pieces"]]
    hashed = hashlib.sha256()
    with joined.open("wb") as whole:
        for file in files:
            content = file.read_bytes()
            hashed.update(content)
            whole.write(content)
            file.unlink()
    if hashed.hexdigest() != archive["sha256"]:
        joined.unlink()
        raise ValueError(f"{archive['name']}: not what was packed; bring all its parts again")
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    with tarfile.open(joined, "r:xz") as tar:
        tar.extractall(partial, filter="data")
    joined.unlink()
    put_back(partial)
    partial.rename(target)


if __name__ == "__main__":
    part, folder = map(Path, sys.argv[1:])
    sys.path.insert(0, str(folder / "site"))
    sys.stdout.write("\n".join(unpack(part, folder)) + "\n")
