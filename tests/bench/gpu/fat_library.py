"""Shared libraries of a test's own with fat binaries in them, laid out as CUDA's compiler does."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from glimmer_export.exporter.bench.gpu.unpack import zstd

__all__ = ["Code", "fat_binary", "library"]


@dataclass(frozen=True)
class Code:
    """What one entry holds; `level` packs it with zstd, None leaves it as it is."""

    kind: int
    architecture: int
    content: bytes
    level: int | None = None
    header: int = 64

    @property
    def stored(self) -> bytes:
        packed = self.content if self.level is None else zstd().compress(self.content, self.level)
        return bytes(packed) + bytes(-len(packed) % 8)

    def entry(self) -> bytes:
        packed = 0 if self.level is None else len(self.stored.rstrip(b"\0"))
        unpacked = 0 if self.level is None else len(self.content)
        fixed = struct.pack(
            "<HHIQIIHHIIIQQQ", self.kind, 0x101, self.header, len(self.stored), packed, 0, 0, 8, self.architecture,
            0, 0, 0x8011, 0, unpacked,
        )  # fmt: skip
        return fixed.ljust(self.header, b"\7") + self.stored


def fat_binary(*codes: Code) -> bytes:
    entries = b"".join(code.entry() for code in codes)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(entries)) + entries


def library(binaries: Sequence[bytes], *, between: int = 8, section: bytes = b".nv_fatbin") -> bytes:
    """An ELF file of three sections: none, the fat binaries with zeros between, and the sections' names."""
    fat = bytes(between).join(binaries)
    names = b"\0" + section + b"\0.shstrtab\0"
    before = b"\x90" * 40
    start = 64 + len(before)
    table = start + len(fat) + len(names)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 3, 62, 1, 0, 0, table, 0, 64, 0, 0, 64, 3, 2
    )
    sections = [
        (0,) * 10, (1, 1, 2, 0, start, len(fat), 0, 0, 8, 0),
        (len(section) + 2, 3, 0, 0, start + len(fat), len(names), 0, 0, 1, 0),
    ]  # fmt: skip
    return header + before + fat + names + b"".join(struct.pack("<IIQQQQIIQQ", *row) for row in sections)
