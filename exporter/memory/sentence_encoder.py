"""A sentence encoder's directory: what is in it, a copy for a store, and the passages' vectors by it.

    ENCODER/model.onnx        input_ids, attention_mask [, token_type_ids] -> last_hidden_state or sentence_embedding
    ENCODER/tokenizer.json    of the Hugging Face library tokenizers
    ENCODER/encoder.json      EncoderSettings
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.contract import EmbeddingsError, StoreError, check_regular, inside, is_there, map_regular
from glimmer_export.runtime.contract.dense_layout import EncoderSettings
from glimmer_export.runtime.contract.kinds import refuse_ours
from glimmer_export.runtime.contract.records import read_json, record_from_json
from glimmer_export.runtime.external_data import external_data
from glimmer_export.runtime.passage_texts import PassageTexts
from glimmer_export.runtime.retrieval.encoder import SentenceEncoder

__all__ = ["copy_encoder", "encoded_rows", "read_encoder"]

MODEL, TOKENIZER, SETTINGS = "model.onnx", "tokenizer.json", "encoder.json"
BATCHES_AT_ONCE = 16
FIX = "see `glimmer-export memory index --help`"


def read_encoder(directory: Path) -> tuple[EncoderSettings, list[str]]:
    """The settings, and the names of the files to keep: the graph, its external data, and last the tokenizer.

    Raises EmbeddingsError: a file is absent, settings are unknown or out of range, a graph is none.
    """
    subject = f"encoder {directory}"
    refuse_ours(
        [directory], expected="the directory of a sentence encoder", error=EmbeddingsError, subject="encoder", fix=FIX
    )
    data = read_json(directory / SETTINGS, error=EmbeddingsError, fix=FIX)
    settings = record_from_json(EncoderSettings, data, error=EmbeddingsError, subject=f"{subject}, {SETTINGS}", fix=FIX)
    if fault := settings.fault():
        raise EmbeddingsError(f"{subject}, {SETTINGS}", expected="settings of an encoder", found=fault, fix=FIX)
    for name in (MODEL, TOKENIZER):
        if not is_there(directory / name):
            raise EmbeddingsError(subject, expected=f"a file {name}", found="none", fix=FIX)
    names = [MODEL, *sorted(_external_data(directory / MODEL)), TOKENIZER]
    for name in names:
        path = inside(directory, name, error=EmbeddingsError, subject=subject)
        check_regular(
            path, error=EmbeddingsError, subject=subject, expected=f"a file {name}", fix="copy the encoder again"
        )
    return settings, names


def copy_encoder(source: Path, target: Path, names: Sequence[str]) -> None:
    """Copy these files of an encoder's directory."""
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)


def encoded_rows(
    encoder: SentenceEncoder, texts: PassageTexts, numbers: Sequence[int], batch_size: int
) -> Iterator[Array]:
    """Chunks (rows, dimension) float32, a row for each of `numbers` in their order.

    Passages of like length are encoded together. Raises EmbeddingsError where a vector is not finite.
    """
    at_once = batch_size * BATCHES_AT_ONCE
    for start in range(0, len(numbers), at_once):
        passages = texts.passages(numbers[start : start + at_once])
        order = sorted(range(len(passages)), key=lambda row: -len(passages[row].text))
        chunk = None
        for begin in range(0, len(order), batch_size):
            rows = order[begin : begin + batch_size]
            try:
                vectors = encoder.passages([(passages[row].title, passages[row].text) for row in rows])
            except StoreError as error:
                raise EmbeddingsError(
                    f"passages from {passages[rows[0]].id!r} on", expected=error.expected, found=error.found,
                    fix=error.fix,
                ) from None
            if chunk is None:
                chunk = np.empty((len(passages), vectors.shape[1]), np.float32)
            chunk[rows] = vectors
        assert chunk is not None
        yield chunk


def _external_data(path: Path) -> set[str]:
    """Names of the files that hold a graph's weights beside it."""
    subject = f"encoder {path}"
    content = map_regular(path, error=EmbeddingsError, subject=subject, fix=FIX)
    try:
        return {data.location.decode() for data in external_data(memoryview(content or b""))}
    except ValueError as reason:
        raise EmbeddingsError(subject, expected="an ONNX model", found=str(reason), fix=FIX) from None
