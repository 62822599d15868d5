"""A sentence encoder in ONNX: texts -> vectors, by ONNX Runtime and the encoder's own tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.backends.onnxruntime_library import OrtSession, import_onnxruntime
from glimmer_export.runtime.backends.threads import num_threads, sleep_soon
from glimmer_export.runtime.contract import StoreError, read_limited
from glimmer_export.runtime.contract.files import MAX_TOKENIZER_BYTES
from glimmer_export.runtime.contract.vector_layout import EncoderSettings
from glimmer_export.runtime.tokenizer_limits import TokenizerErrors, TokenizerLimits, text_fault, tokenizer_limits

__all__ = ["SentenceEncoder"]

IDS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"
STATES, EMBEDDING = "last_hidden_state", "sentence_embedding"
INTEGERS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
FIX = "export the encoder with these inputs and outputs, and pass its directory to `glimmer-export memory index`"


class SentenceEncoder:
    """A graph and its tokenizer, loaded. Safe from several threads.

    The graph reads input_ids, attention_mask and, if it has that input, token_type_ids, each (batch, tokens) int64
    or int32; it gives last_hidden_state (batch, tokens, dimension), or sentence_embedding (batch, dimension).
    """

    def __init__(self, graph: Path, tokenizer: Path, settings: EncoderSettings, *, threads: int | None = None) -> None:
        """Load both files; raises StoreError if one of them is not valid, BackendError without ONNX Runtime."""
        self.settings = settings
        self._session = _session(graph, threads)

        def refused(reason: str) -> StoreError:
            return StoreError(
                f"encoder {tokenizer}", expected="a tokenizer that takes any text", found=reason, fix=FIX
            )

        self._tokenizer_errors = TokenizerErrors(refused)
        self._tokenizer, self._limits = _tokenizer(tokenizer, settings.max_length)
        self._inputs = {name: INTEGERS.get(kind) for name, kind, _ in self._session.inputs}
        self._output = EMBEDDING if settings.pooling == "graph" else STATES
        given = [name for name, _, _ in self._session.outputs]
        names = {IDS, MASK} <= set(self._inputs) <= {IDS, MASK, TYPES}
        if not names or None in self._inputs.values() or self._output not in given:
            raise StoreError(
                f"encoder {graph}", expected=f"integer inputs {IDS} and {MASK}, and an output {self._output}",
                found=f"{', '.join(self._inputs)}; {', '.join(given)}", fix=FIX,
            )

    def question(self, question: str) -> Array:
        """A question's vector: (dimension,) float32. Raises StoreError if it is not finite."""
        embedding: Array = self._encode([f"{self.settings.query_prefix}{question}"])[0]
        return embedding

    def passages(self, passages: Sequence[tuple[str, str]]) -> Array:
        """Vectors of passages by title and text: (passages, dimension) float32. Raises as `question`."""
        prefix = self.settings.passage_prefix
        return self._encode([f"{prefix}{title} {text}" if title else f"{prefix}{text}" for title, text in passages])

    def _encode(self, texts: Sequence[str]) -> Array:
        # A lone surrogate cannot be encoded, and nothing is lost with it.
        # What is cut off is beyond any number of tokens that an encoder takes.
        most = self._limits.max_characters
        clean = [text.encode("utf-8", "replace").decode("utf-8").strip()[:most] for text in texts]
        with self._tokenizer_errors:
            faults = [text_fault(text, self._limits, self._tokenizer.normalizer) for text in clean]
        for text, fault in zip(clean, faults, strict=True):
            if fault is not None:
                raise StoreError(
                    f"encoder, text {text[:60]!r}", expected=fault[0], found=fault[1], fix="shorten the text"
                )
        with self._tokenizer_errors:
            encodings = self._tokenizer.encode_batch(clean)
        longest = max(1, *(len(encoding.ids) for encoding in encodings))
        inputs = {name: np.zeros((len(texts), longest), dtype) for name, dtype in self._inputs.items()}
        for row, encoding in enumerate(encodings):
            values = {IDS: encoding.ids, MASK: encoding.attention_mask, TYPES: encoding.type_ids}
            for name, array in inputs.items():
                array[row, : len(encoding.ids)] = values[name]
        states: Array = self._session.run([self._output], inputs)[0]
        given = inputs[IDS].shape if self._output == STATES else inputs[IDS].shape[:1]
        if states.dtype.kind == "f" and states.shape[:-1] == given:
            embeddings = _pooled(states.astype(np.float32), inputs[MASK], self.settings)
            if np.isfinite(embeddings).all():
                return embeddings
        raise StoreError(
            "encoder", expected=f"finite vectors from {self._output}", found=f"{states.dtype} {list(states.shape)}",
            fix="check the encoder's graph",
        )


def _pooled(states: Array, mask: Array, settings: EncoderSettings) -> Array:
    """(batch, tokens, dimension) -> (batch, dimension), of length 1 where the settings say so."""
    embeddings = states
    if settings.pooling == "cls":
        embeddings = states[:, 0]
    elif settings.pooling == "mean":
        weights = mask[..., None].astype(np.float32)
        embeddings = (states * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1)
    if settings.normalise:
        embeddings = embeddings / np.maximum(np.linalg.norm(embeddings, axis=-1, keepdims=True), 1e-12)
    return embeddings


def _session(graph: Path, threads: int | None) -> OrtSession:
    def refused(reason: str) -> StoreError:
        return StoreError(f"encoder {graph}", expected="a graph that ONNX Runtime can load", found=reason, fix=FIX)

    onnxruntime = import_onnxruntime("sentence encoder")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = num_threads(threads, graph)
    sleep_soon(options, onnxruntime.__version__)
    return OrtSession(graph, options, subject=f"encoder {graph}", refused=refused)


def _tokenizer(path: Path, max_length: int) -> tuple[Any, TokenizerLimits]:
    from tokenizers import Tokenizer

    def refused(reason: str) -> StoreError:
        return StoreError(f"encoder {path}", expected="a tokenizer.json", found=reason, fix=FIX)

    content = read_limited(
        path, limit_bytes=MAX_TOKENIZER_BYTES, error=StoreError, subject=f"encoder {path}", fix=FIX,
        expected="a tokenizer.json",
    )
    try:
        limits = tokenizer_limits(content)
    except ValueError as reason:
        raise refused(str(reason)) from None
    with TokenizerErrors(refused, reads=True):
        tokenizer = Tokenizer.from_buffer(content)
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length)
    return tokenizer, limits
