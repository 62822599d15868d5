"""Bundles whose memory encoder is a few real ONNX nodes and whose other graphs are empty files: stores need no more."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

from glimmer_export.runtime.contract import (
    BUNDLE_SCHEMA_VERSION,
    MANIFEST,
    BundleManifest,
    FileEntry,
    Forms,
    GraphEntry,
    ModelShape,
    file_digest,
    graph_io,
    record_to_json,
    tensor_entries,
)

D_MODEL = 8
PASSAGE_LENGTH = 24
WORDS = [f"w{index}" for index in range(60)]
NOT_FINITE, HUGE = "<infinite>", "<huge>"
VOCABULARY = {word: index for index, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS, NOT_FINITE, HUGE])}
PARTS = {"glimmer": (1, 1, 1), "lumen": (1, 0, 1), "memory_fid": (1, 0, 0), "fid": (0, 0, 1)}


def make_bundle(
    directory: Path, *, architecture: str = "glimmer", checkpoint: str = "a", precision: str = "fp32",
    tokenizer: bool = True, passage_length: int = PASSAGE_LENGTH, codecs: tuple[str, ...] = ("fp16",),
) -> Path:
    """Write a bundle; `checkpoint` stands for the weights, in the digests and in the memory encoder's numbers."""
    (directory / "graphs").mkdir(parents=True)
    memory, stage_a, stage_b = PARTS[architecture]
    shape = ModelShape(
        architecture=architecture, vocab_size=len(VOCABULARY), d_model=D_MODEL, d_kv=4, d_ff=16, num_heads=2,
        feed_forward_proj="gated-gelu",
        num_memory_layers=memory, num_stage_a_layers=stage_a, num_stage_b_layers=stage_b, num_decoder_layers=1,
        separate_question_encoder=False, question_length=12, passage_length=passage_length,
        question_template="{question}", passage_template="{title} {text}", num_retrieved=4,
        num_selected=2 if architecture == "glimmer" else None, max_new_tokens=4, pad_token_id=0, eos_token_id=1,
        decoder_start_token_id=0,
    )
    graphs = {}
    forms = Forms(() if architecture == "fid" else codecs, "full" if architecture == "glimmer" else None, "cached")
    for name, io in graph_io(shape, forms).items():
        path = directory / "graphs" / f"{name}.onnx"
        if name == "memory_encoder":
            onnx.save(memory_encoder(checkpoint), path)
        else:
            path.write_bytes(onnx.ModelProto(producer_name=name).SerializeToString())
        inputs, outputs = tensor_entries(io)
        graphs[name] = GraphEntry((entry(directory, path),), inputs, outputs, precision, 0, 0)
    if tokenizer:
        write_tokenizer(directory / "tokenizer.json")
    file = entry(directory, directory / "tokenizer.json") if tokenizer else None
    manifest = BundleManifest(
        schema_version=BUNDLE_SCHEMA_VERSION, model=shape, graphs=graphs, weights=None, codecs=forms.codecs,
        stage_a=forms.stage_a, cross_attention=forms.cross_attention, tokenizer=file, calibration=(), quantization=None,
        checkpoint_digest=digest(f"checkpoint {checkpoint}"), memory_digest=digest(f"memory {checkpoint}"),
        tokenizer_digest=file.sha256 if file else None, log_probability=forms.log_probability,
        takes_drafts=forms.takes_drafts,
    )
    (directory / MANIFEST).write_text(record_to_json(manifest), encoding="utf-8")
    return directory


def memory_encoder(checkpoint: str) -> onnx.ModelProto:
    """Embedding, plus a share of the sum over the tokens so far, mixed: each state depends on those before it."""
    seed = int(digest(checkpoint)[:8], 16)
    generator = np.random.default_rng(seed)
    embedding = generator.standard_normal((len(VOCABULARY), D_MODEL)).astype(np.float32)
    embedding[VOCABULARY[NOT_FINITE]] = np.inf
    embedding[VOCABULARY[HUGE]] *= 1e20
    constants = {
        "embedding": embedding,
        "mixing": generator.standard_normal((D_MODEL, D_MODEL)).astype(np.float32),
        "share": np.float32(0.1),
        "token_axis": np.int64(1),
        "last_axis": np.array([2], np.int64),
    }
    nodes = [
        helper.make_node("Gather", ["embedding", "input_ids"], ["embedded"]),
        helper.make_node("Cast", ["attention_mask"], ["float_mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["float_mask", "last_axis"], ["column_mask"]),
        helper.make_node("Mul", ["embedded", "column_mask"], ["kept"]),
        helper.make_node("CumSum", ["kept", "token_axis"], ["so_far"]),
        helper.make_node("Mul", ["so_far", "share"], ["shared"]),
        helper.make_node("Add", ["kept", "shared"], ["sum"]),
        helper.make_node("MatMul", ["sum", "mixing"], ["hidden_states"]),
    ]
    tokens = ["batch", "tokens"]
    graph = helper.make_graph(
        nodes, "memory_encoder",
        [helper.make_tensor_value_info(name, TensorProto.INT32, tokens) for name in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info("hidden_states", TensorProto.FLOAT, [*tokens, D_MODEL])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def write_tokenizer(path: Path) -> None:
    """A tokenizer of whole words."""
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(path))


def write_corpus(path: Path, num_passages: int, *, seed: int = 0) -> list[dict[str, object]]:
    """Passages of random words with integer and string ids; returns the rows."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(num_passages):
        words = generator.choice(WORDS, int(generator.integers(1, 20)))
        rows.append({
            "id": number if number % 2 else f"p{number}", "title": f"title{number}", "text": " ".join(words),
        })
    write_rows(path, rows)
    return rows


def write_rows(path: Path, rows: list[dict[str, object]]) -> Path:
    """Write JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rewrite(path: Path, **changes: object) -> None:
    """Change fields of a JSON file; a store whose manifest it is loses its replicas, which would tell."""
    shutil.rmtree(path.parent / "replicas", ignore_errors=True)
    data = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**data, **changes}), encoding="utf-8")


def tree(directory: Path) -> dict[str, str]:
    """Digest of every file below a directory, by its path."""
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {str(path.relative_to(directory)): file_digest(path) for path in files}


def entry(directory: Path, path: Path) -> FileEntry:
    """How a manifest names a file."""
    return FileEntry.of(directory, path)


def digest(text: str) -> str:
    """A digest in place of one of weights."""
    return hashlib.sha256(text.encode()).hexdigest()
