"""What a build will make: every setting that decides a store's bytes, so that only the same build continues one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from glimmer_export.exporter.memory.codec_error import SAMPLE_PASSAGES, CodecSample, choose_sample
from glimmer_export.exporter.memory.corpus import Corpus
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import (
    BundleError,
    FileEntry,
    OptionError,
    StoreManifest,
    TokenizerError,
    codec_layout,
)

__all__ = ["BuildPlan", "check_codec", "plan_build"]


@dataclass(frozen=True)
class BuildPlan:
    """`plan.json` of a build under way. `batch_tokens` counts padding too; `graph_sha256` lists the encoder's files.

    `arrays_sha256` is the digest of the codec's arrays in a store that is appended to; a build fits its own, and has
    None. Shards of one would be read wrongly with the arrays of the other. `sample_passages` is how many passages in
    even steps through the corpus they are fitted to, 0 where they are not fitted here.

    The number of threads is not here: it may change from one run to the next, on a machine that is busier.
    """

    corpus_sha256: str
    chunk_words: int | None
    num_passages: int
    memory_digest: str
    tokenizer_digest: str
    codec: str | None
    arrays_sha256: str | None
    sample_passages: int
    precision: str | None
    graph_sha256: tuple[str, ...]
    d_model: int
    passage_length: int
    passages_per_shard: int
    batch_tokens: int
    index_engine: str

    @property
    def num_shards(self) -> int:
        """How many shards the store will have."""
        return -(-self.num_passages // self.passages_per_shard)

    def shard_passages(self, index: int) -> int:
        """How many passages a shard will hold."""
        return min(self.passages_per_shard, self.num_passages - index * self.passages_per_shard)

    def sample(self) -> CodecSample:
        """The passages that the codec is fitted to, and those outside on which its error is measured."""
        return choose_sample(range(self.num_passages), self.sample_passages)

    def differences(self, other: BuildPlan | StoreManifest) -> list[str]:
        """Names of the settings in which another plan, or a finished store so far as it tells, differs."""
        names = [field.name for field in dataclasses.fields(self) if hasattr(other, field.name)]
        return [name for name in names if getattr(self, name) != getattr(other, name)]


def plan_build(
    bundle: Bundle, corpus: Corpus, *, codec: str | None, passages_per_shard: int, batch_tokens: int, index_engine: str,
    arrays: FileEntry | None = None,
) -> BuildPlan:
    """The plan for a bundle and a corpus; `arrays` are those of the codec in a store that is appended to.

    `codec` None: the bundle's own where its graphs decode one alone, else fp16.

    Raises TokenizerError for a bundle that cannot read text, OptionError for a codec that its graphs do not decode.
    """
    manifest = bundle.manifest
    if bundle.text is None:
        raise TokenizerError(
            str(bundle), expected="a tokenizer, to encode passages", found="none",
            fix="export it from a checkpoint with a tokenizer.json",
        )
    if manifest.tokenizer_digest is None:
        raise BundleError(
            str(bundle), expected="the digest of its tokenizer", found="none", fix="export the bundle again"
        )
    encoder = manifest.graphs.get("memory_encoder")
    if codec is None:
        codec = manifest.codecs[0] if len(manifest.codecs) == 1 else "fp16"
    stored = check_codec(bundle, codec) if encoder else None
    fits = stored is not None and arrays is None and codec_layout(stored, manifest.model.d_model).arrays
    return BuildPlan(
        corpus_sha256=corpus.sha256,
        chunk_words=corpus.source.chunk_words,
        num_passages=corpus.num_passages,
        memory_digest=manifest.memory_digest,
        tokenizer_digest=manifest.tokenizer_digest,
        codec=stored,
        arrays_sha256=arrays.sha256 if arrays else None,
        sample_passages=SAMPLE_PASSAGES if fits else 0,
        precision=encoder.precision if encoder else None,
        graph_sha256=tuple(file.sha256 for file in encoder.files) if encoder else (),
        d_model=manifest.model.d_model,
        passage_length=manifest.model.passage_length,
        passages_per_shard=passages_per_shard,
        batch_tokens=batch_tokens,
        index_engine=index_engine,
    )


def check_codec(bundle: Bundle, codec: str) -> str:
    """The codec, if the bundle's graphs decode it; raises OptionError."""
    if codec not in bundle.manifest.codecs:
        raise OptionError(
            "--codec", expected=f"one that {bundle} decodes, {', '.join(bundle.manifest.codecs)}", found=codec,
            fix=f"choose one of these, or export the bundle again with `--codecs {codec}`",
        )
    return codec
