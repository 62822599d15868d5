"""Sound inputs, each written into an empty folder: golden files, or made of factories of the tests."""

from __future__ import annotations

import gzip
import json
import shutil
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from glimmer_export.runtime.contract import read_store_manifest
from glimmer_export.runtime.passage_texts import Passage, PassageTexts
from tests.corpus_files import HAS_ZSTD, WRITERS

__all__ = ["BUNDLE", "FID_BUNDLE", "GOLDEN", "INT8_BUNDLE", "PLACES", "STORE"]

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
GOLDEN = TESTS / "golden"
BUNDLE, STORE, TANTIVY_STORE = GOLDEN / "bundle", GOLDEN / "store-fp16", GOLDEN / "store-tantivy"
INT8_STORE = GOLDEN / "store-int8"
INT8_BUNDLE, FID_BUNDLE = GOLDEN / "schema5" / "bundle-int8", GOLDEN / "schema5" / "bundle-fid"
BUNDLE_5, STORE_5, INT8_STORE_5 = (GOLDEN / "schema5" / name for name in ("bundle", "store-fp16", "store-int8"))
CORPUS_ENDINGS = tuple(WRITERS)
QUESTION_ENDINGS = ("jsonl", "json", "jsonl.gz", *(("jsonl.zst",) if HAS_ZSTD else ()))
STORAGE = ("safetensors", "sharded safetensors", "pickle", "legacy pickle", "sharded pickle")
T5X = {"t5x_zarr": "glimmer", "t5x_inline": "fid", "orbax_ocdbt": "fid", "orbax_zarr3": "lumen",
       "orbax_plain": "fid v1.0"}
NUM_PASSAGES = 40
"""Of the golden stores, as they were built."""
KILT: list[dict[str, Any]] = [
    {"id": "a", "input": "w1 w2", "output": [{"answer": "w3", "provenance": [{"wikipedia_id": "1"}]}], "task": "nq"},
    {"id": "b", "input": "w4", "output": [{"answer": "w5"}, {"answer": "w6"}]},
]
GIVEN: list[dict[str, Any]] = [
    {"id": 1, "question": "w4", "answers": ["w5", "w6"], "ctxs": [{"id": 1, "title": "w7", "text": "w8"}]},
    {"id": "b", "question": "w10 w11", "answers": [], "ctxs": [{"title": "w2", "text": "w3"}]},
]
PASSAGES: list[dict[str, Any]] = [
    {"id": number if number % 2 else f"new{number}", "title": f"w{number}", "text": f"w{number} w1 w2 w3 " * 3}
    for number in range(100, 120)
]  # fmt: skip


def nothing(folder: Path) -> None:
    """For uses that read the golden files alone."""


def new_bundle(folder: Path) -> None:
    from glimmer_export.exporter.bundle import FormOptions, export_bundle

    form = FormOptions(stage_a=None, cross_attention="absorbed", codecs=("fp16", "int8"))
    export_bundle(GOLDEN / "checkpoint", folder / "made", form)
    _raise(folder / "made", folder)


def bundle_with_engines(folder: Path) -> None:
    from glimmer_export.runtime.contract import (
        ENGINE_RECORD,
        ENGINE_SCHEMA_VERSION,
        ENGINES,
        EngineEntry,
        EngineKey,
        EngineRecord,
        FileEntry,
        ShapeRange,
        record_to_json,
    )

    shutil.copytree(INT8_BUNDLE, folder, dirs_exist_ok=True)
    for library, device in (("tensorrt", "Tesla T4"), ("tensorrt_rtx", None)):
        key = EngineKey(library, "10.3.0.26", "7.5", device)
        profile = {"selected": ShapeRange((1, 1), (1, 3), (4, 5))}
        entry = EngineEntry(FileEntry("live_stage_b.engine", 4, "a" * 64), "b" * 64, (profile,), 1.5)
        record = EngineRecord(ENGINE_SCHEMA_VERSION, key, "t4", device is None, {"live_stage_b": entry})
        directory = folder / ENGINES / key.fingerprint
        directory.mkdir(parents=True)
        (directory / ENGINE_RECORD).write_text(record_to_json(record), encoding="utf-8")
        (directory / "live_stage_b.engine").write_bytes(b"none")


def golden_passages() -> list[Passage]:
    """Of the golden store."""
    parts = read_store_manifest(STORE).texts
    with closing(PassageTexts(STORE, parts, np.zeros(0, np.int64), folding=0)) as texts:
        return texts.passages(range(NUM_PASSAGES))


def segmented_store(folder: Path) -> None:
    """Of many shards, in a list, and segments with their index; what was deleted is in a file."""
    with patch("glimmer_export.exporter.memory.commit.INLINE_TOMBSTONES", 0):
        new_store(folder, passages_per_shard=2, index="tantivy")


def new_store(folder: Path, *, passages_per_shard: int = 16, index: str = "fts5") -> None:
    """Of the schema of now, with what was appended and deleted, in a codec that is fitted; ids as the golden one's."""
    from glimmer_export.exporter.memory import append_passages, build_store, delete_passages

    passages = golden_passages()
    rows = [{"id": passage.id, "title": passage.title, "text": passage.text} for passage in passages]
    first, second = folder / "first.jsonl", folder / "second.jsonl"
    _lines(first, rows)
    _lines(second, PASSAGES[:1])
    build_store(
        BUNDLE, first, folder / "made", passages_per_shard=passages_per_shard, threads=1, codec="int8", index=index
    )
    append_passages(folder / "made", BUNDLE, second, threads=1)
    delete_passages(folder / "made", [rows[5]["id"]])
    first.unlink()
    second.unlink()
    _raise(folder / "made", folder)


def residual_store(folder: Path) -> None:
    """The golden store in a residual codec, which its bundle does not decode: what changes a store does."""
    from glimmer_export.exporter.memory import convert_store

    convert_store(STORE, folder / "made", "rq8x")
    _raise(folder / "made", folder)


def dense_store(folder: Path) -> None:
    """A store with vectors and the sentence encoder that made them."""
    from glimmer_export.exporter.memory import index_store

    new_store(folder)
    made = folder.with_name(f"{folder.name}.encoder")
    made.mkdir()
    encoder(made)
    index_store(folder, encoder=made, threads=1)
    shutil.rmtree(made)


def encoder(folder: Path) -> None:
    """An embedding is all its graph has."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from tests.bundle_factory import VOCABULARY, write_tokenizer

    table = np.random.default_rng(0).standard_normal((len(VOCABULARY), 6)).astype(np.float32)
    sizes = ["batch", "tokens"]
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"])], "encoder",
        [helper.make_tensor_value_info(name, TensorProto.INT64, sizes) for name in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*sizes, 6])],
        [numpy_helper.from_array(table, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, folder / "model.onnx")
    write_tokenizer(folder / "tokenizer.json")
    settings = {"pooling": "mean", "normalise": True, "query_prefix": "", "passage_prefix": "", "max_length": 16}
    (folder / "encoder.json").write_text(json.dumps(settings), encoding="utf-8")


def embeddings(folder: Path) -> None:
    """Of the golden store's passages."""
    ids = [passage.id for passage in golden_passages()]
    np.save(folder / "vectors.npy", np.random.default_rng(0).standard_normal((len(ids), 6)).astype(np.float32))
    (folder / "ids.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in ids), encoding="utf-8")


def corpus(ending: str, folder: Path) -> None:
    from glimmer_export.runtime import Passage

    rows = [Passage(row["id"] if "parquet" not in ending and "tsv" not in ending else str(row["id"]), row["title"],
                    row["text"]) for row in PASSAGES]
    WRITERS[ending](folder / f"corpus.{ending}", rows)


def questions(ending: str, folder: Path) -> None:
    text = json.dumps(GIVEN) if ending == "json" else "".join(f"{json.dumps(row)}\n" for row in GIVEN)
    content = text.encode()
    if ending.endswith(".zst"):
        content = bytes(import_module("backports.zstd").compress(content))
    (folder / f"questions.{ending}").write_bytes(gzip.compress(content) if ending.endswith(".gz") else content)


def kilt(folder: Path) -> None:
    _lines(folder / "questions.jsonl", KILT)


def ids(folder: Path) -> None:
    _lines(folder / "ids.jsonl", [1, "p2", {"id": 3}, {"id": "p4", "title": ""}])


def policy(folder: Path) -> None:
    shutil.copyfile(ROOT / "configs" / "precision" / "int8.yaml", folder / "own.yaml")


def gate(folder: Path) -> None:
    shutil.copyfile(ROOT / "configs" / "parity" / "default.yaml", folder / "own.yaml")


def machine(folder: Path) -> None:
    (folder / "targets").mkdir()
    shutil.copyfile(ROOT / "configs" / "targets" / "t4.yaml", folder / "targets" / "t4.yaml")


def name_map(folder: Path) -> None:
    (folder / "map.yaml").write_text("memory_encoder: passage_encoder\n", encoding="utf-8")


def t5(storage: str, folder: Path) -> None:
    from tests.bundle_factory import write_tokenizer
    from tests.t5_factory import make_t5, save_t5

    save_t5(make_t5("v1.1", num_layers=6), folder, storage)
    write_tokenizer(folder / "tokenizer.json")


def fid(folder: Path) -> None:
    from tests.fid_factory import make_reader, save_fid, word_tokenizer

    save_fid(make_reader(), folder / "made")
    word_tokenizer().save(str(folder / "made" / "tokenizer.json"))
    _raise(folder / "made", folder)


def t5x(golden: str, folder: Path) -> None:
    from tests.checkpoint.golden.known import DIRECTORY, KNOWN

    shutil.copytree(DIRECTORY / golden, folder / "checkpoint")
    (folder / "config.json").write_text(KNOWN[T5X[golden]].model_dump_json(), encoding="utf-8")
    text = "memory_encoder: passage_encoder\n" if golden == "t5x_zarr" else "{}\n"
    (folder / "map.yaml").write_text(text, encoding="utf-8")


def sentencepiece(folder: Path) -> None:
    from tests.checkpoint.test_sentencepiece import train

    (folder / "spiece.model").write_bytes(train("nmt_nfkc"))


def unigram(folder: Path) -> None:
    """What the tokenizer of a T5 is: pieces, a table for normalising, a processor."""
    from glimmer_export.exporter.checkpoint.tokenizer import find_tokenizer

    sentencepiece(folder)
    content = find_tokenizer(folder, None)
    assert content is not None
    (folder / "spiece.model").unlink()
    (folder / "tokenizer.json").write_bytes(content)


def training(folder: Path) -> None:
    """The state of a training, interrupted."""
    from glimmer_export.exporter.training.state import save_state
    from tests.fuzz.uses import trainer

    save_state(trainer(), {"seed": 0}, folder / "made")
    _raise(folder / "made", folder)


def _stub(folder: Path) -> None:
    from tests.bundle_factory import make_bundle

    make_bundle(folder / "made")
    _raise(folder / "made", folder)


def _corpus_file(folder: Path) -> None:
    _lines(folder / "corpus.jsonl", PASSAGES[10:16])


def _questions_file(folder: Path) -> None:
    _lines(folder / "questions.jsonl", KILT)


PLACES = {
    "stub": (_stub, ""), "corpus": (_corpus_file, "corpus.jsonl"), "questions": (_questions_file, "questions.jsonl"),
    "embeddings": (embeddings, "vectors.npy"),
}
"""What commands read beside the damaged input: how it is made, and which file of it is meant."""


def _raise(inner: Path, folder: Path) -> None:
    """Everything of a folder one level up."""
    for path in inner.iterdir():
        path.rename(folder / path.name)
    inner.rmdir()


def _lines(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
