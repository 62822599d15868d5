"""The formats of a corpus, by the ending of its file's name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

from exporter.memory.corpus.jsonl import read_jsonl
from exporter.memory.corpus.parquet import read_parquet
from exporter.memory.corpus.record import Reader
from exporter.memory.corpus.tsv import read_tsv
from runtime.contract import CorpusError

__all__ = ["FORMATS", "CorpusFormat", "CorpusSource", "format_of"]


@dataclass(frozen=True)
class CorpusFormat:
    """How a format is read, and whether its records are counted by the line or by the row."""

    read: Reader
    unit: str


FORMATS: Mapping[str, CorpusFormat] = MappingProxyType({
    "jsonl": CorpusFormat(partial(read_jsonl, compressed=False), "line"),
    "jsonl.gz": CorpusFormat(partial(read_jsonl, compressed=True), "line"),
    "tsv": CorpusFormat(partial(read_tsv, compressed=False), "line"),
    "tsv.gz": CorpusFormat(partial(read_tsv, compressed=True), "line"),
    "parquet": CorpusFormat(read_parquet, "row"),
})
"""By the ending of the file's name, without its dot."""


@dataclass(frozen=True)
class CorpusSource:
    """A corpus file and how to read it: `format`, None for that of its name, is a key of FORMATS.

    `chunk_words` None leaves texts uncut, otherwise they are cut into passages of at most so many words.
    """

    path: Path
    format: str | None = None
    chunk_words: int | None = None

    def __post_init__(self) -> None:
        if self.format not in (None, *FORMATS):
            raise ValueError(f"format must be one of {', '.join(FORMATS)}")
        if self.chunk_words is not None and self.chunk_words < 1:
            raise ValueError("chunk_words must be positive")


def format_of(source: CorpusSource) -> CorpusFormat:
    """The format of a source; raises CorpusError where the file is absent or its name tells none."""
    path, lower = source.path, source.path.name.lower()
    if not path.is_file():  # a pipe cannot be read twice
        raise CorpusError(f"corpus {path}", expected="a file", found="none", fix="name a file of passages")
    name = source.format or next((name for name in FORMATS if lower.endswith(f".{name}")), None)
    if name is None:
        raise CorpusError(
            f"corpus {path}", expected=f"a name that ends in {', '.join(f'.{name}' for name in FORMATS)}",
            found=path.name, fix="rename it, or pass --corpus-format",
        )
    return FORMATS[name]
