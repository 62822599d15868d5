"""Vectors of a store's passages: segments of them, by passage number, and the sentence encoder that made them.

    STORE/vectors/00003-00000.npy             (vectors, dimension) float32 or float16, as numpy writes it
    STORE/vectors/00003-00000-numbers.npy     (vectors,) int64, rising: whose they are, where not every number has one
    STORE/vectors/00003-00000-codes.safetensors      of many vectors: `offsets` (lists + 1,) int64, `rows` (vectors,)
                                                     int32 by list, `codes` (vectors, parts) uint8
    STORE/vectors/00003-00000-checksums.npy   (vectors,) uint32, of many vectors: the CRC-32 (zlib) of each
    STORE/vectors/00003-00000-quantiser.safetensors  what codes are by, float32: `rotation` (width, width),
                                                     `centroids` (lists, width), `codebooks` (parts, 256, width / parts)
    STORE/encoders/00003/                     the encoder, if they were not given: graph, its weights, tokenizer

The first part of a name is the generation of the store that wrote the file. The store's manifest names them all. A
passage fits a question as much as the inner product of their vectors is great.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from glimmer_export.runtime.contract.manifest import FileEntry

__all__ = [
    "CODES_HEADER_BYTES",
    "CODEWORDS",
    "ENCODERS",
    "POOLINGS",
    "VECTORS",
    "EncoderEntry",
    "EncoderSettings",
    "QuantiserEntry",
    "VectorSegmentEntry",
    "VectorsEntry",
    "encoder_name",
    "faults_of_vectors",
    "is_vectors_path",
    "vectors_name",
]

VECTORS, ENCODERS = "vectors", "encoders"
POOLINGS = ("mean", "cls", "graph")
PATHS = re.compile(
    r"vectors/\d{5,}-\d{5,}((-numbers|-checksums)?\.npy|-(codes|quantiser)\.safetensors)|encoders/\d{5,}/([\w-][\w.-]*/)*[\w-][\w.-]*"
    r"|dense/(manifest\.json|embeddings\.npy|numbers\.npy|encoder/([\w-][\w.-]*/)*[\w-][\w.-]*)"
)
"""Those in `dense` are of stores that were indexed before segments."""
MAX_DIMENSION = 1 << 20
CODEWORDS = 256
MAX_PARTS, MAX_LISTS, MAX_CANDIDATES = 1 << 10, 1 << 20, 1 << 20
BYTES_OF = {"float32": 4, "float16": 2}
HEADER_BYTES = 1 << 8
"""What a .npy file has beside its array, at most."""
CODES_HEADER_BYTES = 1 << 10
"""What a safetensors file of codes, or of a quantiser, has beside its arrays, at most."""


@dataclass(frozen=True)
class EncoderSettings:
    """How a sentence encoder is used; `encoder.json` of its directory.

    `pooling`: the `mean` over the tokens' states or the first one (`cls`), or what the graph gives as
    sentence_embedding (`graph`). `normalise`: to length 1. The prefixes stand before a question, and before a passage's
    title and text; longer texts are cut to `max_length` tokens.
    """

    pooling: str
    normalise: bool
    query_prefix: str
    passage_prefix: str
    max_length: int

    def fault(self) -> str | None:
        """What is wrong with them."""
        if self.pooling not in POOLINGS:
            return f"pooling {self.pooling!r}, not one of {', '.join(POOLINGS)}"
        return f"max_length {self.max_length}" if self.max_length < 1 else None


@dataclass(frozen=True)
class EncoderEntry:
    """A sentence encoder: the model file first among `graph`, which lists external data too."""

    graph: tuple[FileEntry, ...]
    tokenizer: FileEntry
    settings: EncoderSettings

    def files(self) -> list[FileEntry]:
        """Its files."""
        return [*self.graph, self.tokenizer]

    def is_same(self, other: EncoderEntry) -> bool:
        """Whether it gives the same vectors: the same files, wherever they lie, used in the same way."""
        digests = [[file.sha256 for file in entry.files()] for entry in (self, other)]
        return digests[0] == digests[1] and self.settings == other.settings


@dataclass(frozen=True)
class VectorSegmentEntry:
    """Vectors of passages numbered from `first` on, of which `num_numbers` are covered and `num_vectors` have one.

    The others were deleted before these were written; some may have been deleted since. `numbers` says which have one,
    None if all have. `dtype` is that of the embeddings. `codes` are theirs by the quantiser, None where there is none;
    `checksums` are beside codes, by which few vectors are read: of each the CRC-32, None of versions before 6.
    """

    first: int
    num_numbers: int
    num_vectors: int
    embeddings: FileEntry
    numbers: FileEntry | None = None
    dtype: str = "float32"
    codes: FileEntry | None = None
    checksums: FileEntry | None = None

    @property
    def end(self) -> int:
        """The number after its last."""
        return self.first + self.num_numbers

    def files(self) -> list[FileEntry]:
        """Its files."""
        return [self.embeddings, *filter(None, (self.numbers, self.codes, self.checksums))]


@dataclass(frozen=True)
class QuantiserEntry:
    """What codes vectors for a search among many: trained once, on `num_trained` of them, for all segments.

    A vector of `width` numbers, zeros behind its dimension, lies in one of `num_lists` lists, as `num_parts` bytes. A
    question looks into `num_probes` lists, and the best `num_candidates` are scored exactly: where some of the vectors
    were the questions, these had the share `recall` of the best 20.
    """

    file: FileEntry
    width: int
    num_lists: int
    num_parts: int
    num_probes: int
    num_candidates: int
    num_trained: int
    recall: float


@dataclass(frozen=True)
class VectorsEntry:
    """All vectors of a store: of one `dimension`, by one `encoder`, None if they were given.

    Without a `quantiser` a search looks at each.

    The segments rise and are apart; a number between two of them, or behind the last, has no vector.
    """

    dimension: int
    encoder: EncoderEntry | None
    segments: tuple[VectorSegmentEntry, ...]
    quantiser: QuantiserEntry | None = None

    def gaps(self, num_numbers: int) -> list[range]:
        """Ranges of the numbers below `num_numbers` that no segment covers: what is not deleted there has no vector."""
        ends = [0, *(segment.end for segment in self.segments)]
        firsts = [*(segment.first for segment in self.segments), num_numbers]
        return [range(end, first) for end, first in zip(ends, firsts, strict=True) if first > end]

    def num_lacking(self, num_numbers: int, dead: NDArray[np.int64]) -> int:
        """How many of the passages below `num_numbers` have no vector; the numbers `dead`, which rise, are deleted."""
        gaps = self.gaps(num_numbers)
        return sum(len(gap) - int(np.diff(dead.searchsorted([gap.start, gap.stop]))[0]) for gap in gaps)

    def files(self) -> list[FileEntry]:
        """Every file of theirs."""
        encoder = self.encoder.files() if self.encoder else []
        quantiser = [self.quantiser.file] if self.quantiser else []
        return [*chain.from_iterable(segment.files() for segment in self.segments), *quantiser, *encoder]


def vectors_name(generation: int, place: int, ending: str = ".npy") -> str:
    """Path of one of the files of vectors that a generation writes, below its store; or `-numbers.npy` and others."""
    return f"{VECTORS}/{generation:05d}-{place:05d}{ending}"


def encoder_name(generation: int) -> str:
    """Folder of the sentence encoder that a generation writes, below its store."""
    return f"{ENCODERS}/{generation:05d}"


def is_vectors_path(path: str) -> bool:
    """Whether a file below a store may be one of its vectors or of their encoder, by its path."""
    return PATHS.fullmatch(path) is not None


def faults_of_vectors(entry: VectorsEntry, num_numbers: int) -> Iterator[tuple[str, str, object]]:
    """Fields, below `vectors`, that no writer gives in a store of so many numbers; what was expected, and found."""
    if not 1 <= entry.dimension <= MAX_DIMENSION:
        yield "dimension", f"1 to {MAX_DIMENSION}", entry.dimension
    end = 0
    for index, segment in enumerate(entry.segments):
        where = f"segments[{index}]"
        if not end <= segment.first < segment.end <= num_numbers:
            yield where, f"numbers from {end} to below {num_numbers}", (segment.first, segment.end)
        if not 0 <= segment.num_vectors <= segment.num_numbers:
            yield f"{where}.num_vectors", f"0 to {segment.num_numbers}", segment.num_vectors
        if segment.numbers is None and segment.num_vectors != segment.num_numbers:
            yield f"{where}.numbers", "a file, where some numbers have no vector", segment.num_vectors
        if segment.dtype not in BYTES_OF:
            yield f"{where}.dtype", " or ".join(BYTES_OF), segment.dtype
            return
        size = segment.num_vectors * entry.dimension * BYTES_OF[segment.dtype]
        if not 0 < segment.embeddings.bytes - size <= HEADER_BYTES:
            yield f"{where}.embeddings.bytes", f"{size} and a header", segment.embeddings.bytes
        if segment.numbers and not 0 < segment.numbers.bytes - segment.num_vectors * 8 <= HEADER_BYTES:
            yield f"{where}.numbers.bytes", f"{segment.num_vectors * 8} and a header", segment.numbers.bytes
        yield from _faults_of_codes(entry, segment, where)
        end = segment.end
    if entry.quantiser is not None:
        yield from _faults_of_quantiser(entry.quantiser, entry.dimension)
    if entry.encoder is not None and (not entry.encoder.graph or entry.encoder.settings.fault()):
        yield "encoder", "a sentence encoder", entry.encoder.settings.fault() or "no graph"
    for file in entry.files():
        if not is_vectors_path(file.path):
            yield "files", "names of files of vectors, or of an encoder", file.path


def _faults_of_codes(
    entry: VectorsEntry, segment: VectorSegmentEntry, where: str
) -> Iterator[tuple[str, str, object]]:
    if (segment.codes is None) != (entry.quantiser is None):
        yield f"{where}.codes", "a file where there is a quantiser, else null", segment.codes and segment.codes.path
    elif segment.checksums is not None and (
        segment.codes is None or not 0 < segment.checksums.bytes - segment.num_vectors * 4 <= HEADER_BYTES
    ):
        size = segment.num_vectors * 4
        yield f"{where}.checksums", f"{size} bytes and a header, beside codes", segment.checksums.bytes
    elif segment.codes is not None and entry.quantiser is not None:
        size = segment.num_vectors * (entry.quantiser.num_parts + 4) + 8 * (entry.quantiser.num_lists + 1)
        if not 0 < segment.codes.bytes - size <= CODES_HEADER_BYTES:
            yield f"{where}.codes.bytes", f"{size} and a header", segment.codes.bytes


def _faults_of_quantiser(entry: QuantiserEntry, dimension: int) -> Iterator[tuple[str, str, object]]:
    for name, least, most in (
        ("num_parts", 1, MAX_PARTS), ("num_lists", 1, MAX_LISTS), ("num_probes", 1, entry.num_lists),
        ("num_candidates", 1, MAX_CANDIDATES), ("width", dimension, dimension + entry.num_parts - 1),
    ):
        if not least <= getattr(entry, name) <= most:
            yield f"quantiser.{name}", f"{least} to {most}", getattr(entry, name)
            return
    if entry.width % entry.num_parts:
        yield "quantiser.width", f"a multiple of {entry.num_parts}", entry.width
    if not 0 <= entry.recall <= 1 or entry.num_trained < 1:
        yield "quantiser.recall", "0 to 1, of a quantiser that was trained", (entry.recall, entry.num_trained)
    size = 4 * entry.width * (entry.num_lists + CODEWORDS + entry.width)
    if not 0 < entry.file.bytes - size <= CODES_HEADER_BYTES:
        yield "quantiser.file.bytes", f"{size} and a header", entry.file.bytes
