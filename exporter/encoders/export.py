"""A sentence encoder's directory -> model.onnx, tokenizer.json, encoder.json, and how near they are to torch."""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from glimmer_export.exporter.encoders.source import EncoderChoices, EncoderSource, read_encoder_source
from glimmer_export.exporter.files.links import resolved
from glimmer_export.exporter.files.publish import publish_directory
from glimmer_export.exporter.files.whole_file import replace_file
from glimmer_export.exporter.graphs.trace import OPSET
from glimmer_export.exporter.memory.vectors import check_indexable
from glimmer_export.exporter.tolerances import MIN_INT8_COSINE, TOLERANCES
from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.contract import EmbeddingsError, ExportError, read_store_manifest
from glimmer_export.runtime.contract.vector_layout import EncoderSettings
from glimmer_export.runtime.retrieval.encoder import SentenceEncoder

__all__ = ["EncoderParity", "EncoderReport", "export_encoder", "exported_encoder"]

MODEL, TOKENIZER, SETTINGS = "model.onnx", "tokenizer.json", "encoder.json"
IDS, MASK, EMBEDDING = "input_ids", "attention_mask", "sentence_embedding"
INLINE_BYTES = 1 << 30
"""Larger models keep their weights in a file beside the graph: a protobuf ends at 2 GiB."""
DEFAULT_LENGTH = 512
"""Of an encoder that says nothing of its texts' length, such as T5's."""
SENTENCES = (
    "Who wrote the first book on the history of the river?", "It rains.",
    "The station was opened on 4 May 1897, closed in 1962, and has been a museum since 2003.",
    "Zürich, Αθήνα and Kraków are cities; naïve café; 50 % of 1,234.5 = 617.25.",
    "what is the capital of a country that has no sea", "東京は日本の首都です。",
    "A passage may be long, and its sentences may follow each other without much sense. " * 8,
)
"""With texts of the tokenizer's own words, what parity is looked at with."""
NUM_WORDS = (3, 17, 60, 200)


@dataclass(frozen=True)
class EncoderParity:
    """ONNX Runtime's vectors beside torch's, of texts one at a time and in batches.

    `max_abs_err` is the greatest difference of an element, in parts of the longest vector's length where that is over
    1, and `limit` what is allowed (none of INT8); `least_cosine` the least between a text's two vectors.
    """

    texts: int
    max_abs_err: float
    limit: float | None
    least_cosine: float


@dataclass(frozen=True)
class EncoderReport:
    """What was written. `bytes` is the size of all files."""

    pooling: str
    dimension: int
    max_length: int
    query_prefix: str
    passage_prefix: str
    precision: str
    bytes: int
    seconds: float
    parity: EncoderParity


def export_encoder(
    source: str | Path, output: str | Path, choices: EncoderChoices | None = None, *, int8: bool = False,
    overwrite: bool = False,
) -> EncoderReport:
    """Write `output` from a directory of Hugging Face or sentence-transformers, and compare it with torch.

    `int8` quantises the weights of matrix products by channel, and their inputs as they come. Raises EmbeddingsError
    or CheckpointError for what the directory has, OptionError for choices against it, ExportError where the vectors
    are too far from torch's, OutputError.
    """
    started = time.monotonic()
    described = read_encoder_source(Path(source), choices or EncoderChoices())
    from glimmer_export.exporter.encoders.model import load_model, load_tokenizer

    with publish_directory(Path(output), overwrite=overwrite, inputs=[Path(source)]) as work:
        tokenizer = load_tokenizer(described)
        model = load_model(described)
        settings = EncoderSettings(
            pooling="graph", normalise=False, query_prefix=described.query_prefix,
            passage_prefix=described.passage_prefix, max_length=_max_length(described, tokenizer, model),
        )
        replace_file(work / TOKENIZER, _plain(tokenizer).encode())
        replace_file(work / SETTINGS, json.dumps(asdict(settings), indent=2, ensure_ascii=False).encode() + b"\n")
        _write_graph(model, work / MODEL)
        parity = _parity(model, tokenizer, work, settings, int8=False)
        if int8:
            _quantise(work / MODEL)
            parity = _parity(model, tokenizer, work, settings, int8=True)
        dimension = int(SentenceEncoder(work / MODEL, work / TOKENIZER, settings).question("a").shape[0])
        num_bytes = sum(path.stat().st_size for path in work.iterdir())
    return EncoderReport(
        described.pooling, dimension, settings.max_length, settings.query_prefix, settings.passage_prefix,
        "int8" if int8 else "fp32", num_bytes, time.monotonic() - started, parity,
    )


@contextmanager
def exported_encoder(source: Path, store: Path, *, overwrite: bool) -> Iterator[Path]:
    """`source`, exported to a temporary directory as `memory index` of `store` takes it.

    Raises as `export_encoder`, and before that as `index_store` for a store whose vectors may not be written.
    """
    check_indexable(resolved(store), read_store_manifest(resolved(store)), overwrite=overwrite)
    with TemporaryDirectory(prefix="glimmer-encoder-") as folder:
        export_encoder(source, Path(folder) / "encoder")
        yield Path(folder) / "encoder"


def _max_length(described: EncoderSource, tokenizer: Any, model: Any) -> int:
    """The tokens of a text at most: what is said of them, as far as the model has positions for them."""
    positions = getattr(model.transformer.config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        table = getattr(getattr(model.transformer, "embeddings", None), "padding_idx", None)
        # RoBERTa's positions begin behind the padding's.
        positions -= table + 1 if isinstance(table, int) else 0
    else:
        positions = None
    own = tokenizer.model_max_length if 0 < tokenizer.model_max_length < 1 << 20 else None
    known = [length for length in (described.max_length or own, positions) if length is not None]
    return min(known) if known else DEFAULT_LENGTH


def _plain(tokenizer: Any) -> str:
    """tokenizer.json, without the padding and cutting that transformers set at its last call."""
    data = json.loads(tokenizer.backend_tokenizer.to_str())
    return json.dumps(data | {"padding": None, "truncation": None}, ensure_ascii=False)


def _write_graph(model: Any, path: Path) -> None:
    import onnx_ir
    import torch

    ids = torch.arange(15, dtype=torch.int64).reshape(3, 5) % min(15, model.transformer.config.vocab_size)
    mask = torch.ones_like(ids)
    mask[1, 3:] = 0
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with _quiet("torch.onnx"):
        program = torch.onnx.export(
            model, (ids, mask), dynamo=True, opset_version=OPSET, input_names=[IDS, MASK],
            output_names=[EMBEDDING], dynamic_shapes={IDS: free, MASK: free}, verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    graph = program.model
    size = sum(value.const_value.nbytes for value in graph.graph.initializers.values() if value.const_value is not None)
    onnx_ir.save(graph, path, external_data=f"{MODEL}.data" if size > INLINE_BYTES else None)


def _quantise(path: Path) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    written = path.with_name("int8.onnx")
    large = path.with_name(f"{MODEL}.data").exists()
    plain = onnx.load(path)
    del plain.graph.value_info[:]  # the quantiser transposes weights, and leaves their shapes as they were noted
    onnx.save(plain, path, save_as_external_data=large, location=f"{MODEL}.data" if large else None)
    del plain
    with _quiet():
        quantize_dynamic(
            path, written, weight_type=QuantType.QInt8, per_channel=True, use_external_data_format=large,
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT, "MatMulConstBOnly": True},
        )
        model = onnx.load(written)
    for file in (path, path.with_name(f"{MODEL}.data"), written, written.with_name("int8.onnx.data")):
        file.unlink(missing_ok=True)
    onnx.save(model, path, save_as_external_data=large, location=f"{MODEL}.data" if large else None)


@contextmanager
def _quiet(name: str | None = None) -> Iterator[None]:
    """Silence what the libraries advise their own users of."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _texts(tokenizer: Any, max_length: int) -> list[str]:
    """Sentences, and words of the tokenizer's vocabulary: of few tokens, and of more than are read."""
    backend = tokenizer.backend_tokenizer
    generator = np.random.default_rng(0)
    ids = range(backend.get_vocab_size())
    counts = [count for count in NUM_WORDS if count <= max_length] + [2 * max_length]
    drawn = (generator.choice(len(ids), count).tolist() for count in counts)
    words = [backend.decode(chosen, skip_special_tokens=True) for chosen in drawn]
    return [*SENTENCES, *(text for text in words if text.strip())]


def _parity(model: Any, tokenizer: Any, work: Path, settings: EncoderSettings, *, int8: bool) -> EncoderParity:
    texts = _texts(tokenizer, settings.max_length)
    loaded = SentenceEncoder(work / MODEL, work / TOKENIZER, settings)
    passages = [("", text) for text in texts]
    batch = loaded.passages(passages)
    alone = np.concatenate([loaded.passages([passage]) for passage in passages])
    wanted = _torch_vectors(model, tokenizer, [f"{settings.passage_prefix}{text}".strip() for text in texts], settings)
    questions = np.stack([loaded.question(text) for text in texts[:3]])
    asked = [f"{settings.query_prefix}{text}".strip() for text in texts[:3]]
    wanted_questions = _torch_vectors(model, tokenizer, asked, settings)
    pairs = [(batch, wanted), (alone, wanted), (questions, wanted_questions)]
    length = max(1.0, *(float(np.linalg.norm(true, axis=1).max()) for _, true in pairs))
    parity = EncoderParity(
        len(texts), max(float(np.abs(found - true).max()) for found, true in pairs) / length,
        None if int8 else TOLERANCES["embedding"].atol, min(_least_cosine(found, true) for found, true in pairs),
    )
    if parity.limit is not None and parity.max_abs_err > parity.limit:
        raise ExportError(
            "encoder", expected=f"vectors within {parity.limit:.1e} of torch's", found=f"{parity.max_abs_err:.1e}",
            fix="report it with the encoder's name",
        )
    if int8 and parity.least_cosine < MIN_INT8_COSINE:
        raise ExportError(
            "encoder in INT8", expected=f"a cosine of {MIN_INT8_COSINE} with torch's vectors at least",
            found=f"{parity.least_cosine:.4f}", fix="export it without --int8",
        )
    return parity


def _torch_vectors(model: Any, tokenizer: Any, texts: Sequence[str], settings: EncoderSettings) -> Array:
    """(texts, dimension) float32, each text alone, cut as transformers cuts it."""
    import torch

    vectors = []
    for text in texts:
        ids = tokenizer(text, truncation=True, max_length=settings.max_length)["input_ids"]
        if not ids:
            raise EmbeddingsError(
                "encoder", expected="a tokenizer that frames a text", found=f"no token in {text[:40]!r}",
                fix="choose another encoder",
            )
        batch = torch.tensor([ids])
        with torch.inference_mode():
            vectors.append(model(batch, torch.ones_like(batch))[0].numpy())
    return np.stack(vectors)


def _least_cosine(found: Array, true: Array) -> float:
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(true, axis=1)
    return float(((found * true).sum(axis=1) / np.maximum(norms, 1e-30)).min())
