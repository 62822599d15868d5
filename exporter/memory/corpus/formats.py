"""The formats of a corpus, by the ending of its file's name; and the files that a corpus is of."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

from glimmer_export.calibration.text_files import files_of
from glimmer_export.exporter.memory.corpus.parquet import read_parquet
from glimmer_export.exporter.memory.corpus.records import Reader, read_jsonl, read_tsv
from glimmer_export.runtime.contract import CorpusError, check_regular
from glimmer_export.runtime.contract.kinds import refuse_ours

__all__ = ["FORMATS", "CorpusFormat", "CorpusSource", "Paths", "corpus_files", "format_of"]


Paths = str | Path | Sequence[str | Path]
"""Of a corpus: a file, a folder or a pattern of files, or several of these."""


@dataclass(frozen=True)
class CorpusFormat:
    """How a format is read, and whether its records are counted by the line or by the row."""

    read: Reader
    unit: str


FORMATS: Mapping[str, CorpusFormat] = MappingProxyType({
    **{
        f"{layout}{packed}": CorpusFormat(partial(read, name=f"{layout}{packed}"), "line")
        for layout, read in (("jsonl", read_jsonl), ("tsv", read_tsv)) for packed in ("", ".gz", ".zst")
    },
    "parquet": CorpusFormat(read_parquet, "row"),
})
"""By the ending of the file's name, without its dot."""
ALIASES = {"ndjson": "jsonl", "json": "jsonl"}
"""Other endings of files that have an object a line."""
ENDING = re.compile(r"\.(jsonl|ndjson|json|tsv)(\.gz|\.zst)?$|\.(parquet)$")
ENDINGS = tuple(f".{layout}{packed}" for layout in ("jsonl", "tsv", *ALIASES) for packed in ("", ".gz", ".zst"))


@dataclass(frozen=True)
class CorpusSource:
    """A corpus and how to read it: `format`, None for that of each file's name, is a key of FORMATS.

    `path` is a file, or a folder or a pattern of files, or several of these, whose passages come one after the other.
    `chunk_words` None leaves texts uncut, otherwise they are cut into passages of at most so many words.
    """

    path: Path | tuple[Path, ...]
    format: str | None = None
    chunk_words: int | None = None

    def __post_init__(self) -> None:
        if self.format not in (None, *FORMATS):
            raise ValueError(f"format must be one of {', '.join(FORMATS)}")
        if self.chunk_words is not None and self.chunk_words < 1:
            raise ValueError("chunk_words must be positive")

    @classmethod
    def of(
        cls, path: Paths, format: str | None = None, chunk_words: int | None = None  # noqa: A002 - the field's name
    ) -> CorpusSource:
        """A source of one path or of several."""
        several = tuple(map(Path, path)) if not isinstance(path, (str, Path)) else (Path(path),)
        return cls(several[0] if len(several) == 1 else several, format, chunk_words)

    @property
    def paths(self) -> tuple[Path, ...]:
        """What was named, as it was named."""
        return self.path if isinstance(self.path, tuple) else (self.path,)

    def __str__(self) -> str:
        """For errors."""
        more = len(self.paths) - 1
        return f"{self.paths[0]}{f' and {more} more' if more else ''}"


def corpus_files(source: CorpusSource) -> list[Path]:
    """The files of a source, in the order in which they are read; raises CorpusError if there is none."""
    refuse_ours(
        source.paths, expected="passages", error=CorpusError, subject="corpus", fix="name a file of passages"
    )
    endings = () if source.format else (*ENDINGS, ".parquet")
    files = files_of(source.paths, endings, subject="corpus", error=CorpusError)
    for path in files:
        subject, fix = f"corpus {path}", "name a file of passages"  # a pipe cannot be read twice
        check_regular(path, error=CorpusError, subject=subject, expected="a file", fix=fix)
    return files


def format_of(source: CorpusSource, path: Path) -> CorpusFormat:
    """The format of one of a source's files; raises CorpusError if its name tells none."""
    if source.format is not None:
        return FORMATS[source.format]
    ending = ENDING.search(path.name.lower())
    if ending is None:
        raise CorpusError(
            f"corpus {path}", expected=f"a name that ends in {', '.join(f'.{name}' for name in FORMATS)}",
            found=path.name, fix="rename it, or pass --corpus-format",
        )
    layout, packed, whole = ending.groups()
    return FORMATS[whole or f"{ALIASES.get(layout, layout)}{packed or ''}"]
