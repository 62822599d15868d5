"""Damage to a file as a whole: no file, another kind of thing in its place, or another file's bytes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from random import Random

__all__ = ["damage_file"]

SPARSE_BYTES = 1 << 36


def damage_file(path: Path, root: Path, random: Random) -> str:  # noqa: PLR0912 - a branch for each kind
    """Put something in the place of a file below `root`; returns what it is now."""
    kind = random.choice((
        "absent", "empty", "fifo", "folder", "device", "zeros", "socket", "loop", "dangling", "sparse", "huge",
        "forbidden", "other file", "link outside", "long", "text", "parent a file",
    ))  # fmt: skip
    content = path.read_bytes()
    path.unlink()
    match kind:
        case "absent":
            pass
        case "empty":
            path.touch()
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/null")
        case "zeros":
            path.symlink_to("/dev/zero")
        case "socket":
            path.symlink_to("/dev/tty")
        case "loop":
            path.symlink_to(path.name)
        case "dangling":
            path.symlink_to("nothing-there")
        case "sparse":
            path.write_bytes(content)
            os.truncate(path, len(content) + random.choice((1, 4096, 1 << 28, SPARSE_BYTES)))
        case "huge":
            path.touch()
            os.truncate(path, SPARSE_BYTES)
        case "forbidden":
            path.write_bytes(content)
            path.chmod(0)
        case "other file":
            others = [other for other in sorted(root.rglob("*")) if other.is_file() and not other.is_symlink()]
            path.write_bytes(random.choice(others).read_bytes() if others else b"")
        case "link outside":
            outside = root.parent / "elsewhere"
            outside.write_bytes(content)
            path.symlink_to(outside)
        case "long":
            path.write_bytes(content * random.choice((2, 3)))
        case "text":
            path.write_text(random.choice(("{}", "[]", "null", "\n", "0", '"a"', "---\n", "<html>")), encoding="utf-8")
        case _:
            if path.parent == root:
                path.write_bytes(content[: len(content) // 2])
            else:
                shutil.rmtree(path.parent)
                path.parent.write_bytes(content)
    return kind
