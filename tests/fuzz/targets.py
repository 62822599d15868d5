"""What is damaged, and how it is then used: every format that a command or the Python door reads, in tiny sizes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.fuzz import inputs, uses

__all__ = ["TARGETS", "Command", "Target", "target_of"]

Make = Callable[[Path], object]
Command = tuple[str, ...]
"""Words of a command line, with `{input}`, `{out}` (not there yet), `{bundle}`, `{store}` and inputs.PLACES in them."""
Use = Callable[[Path, Path], object] | Command


@dataclass(frozen=True)
class Target:
    """`make` fills a folder with sound input; `files` (globs) are damaged; each of `uses` is given it and a free path.

    `quick` ones need neither torch nor seconds. `weight`: how often it is drawn.
    """

    name: str
    make: Make
    files: tuple[str, ...]
    uses: tuple[Use, ...]
    quick: bool = True
    weight: int = 1
    store: Path = inputs.STORE
    """Of the same checkpoint, where the target is a bundle."""


def _copy(source: Path) -> Make:
    return partial(shutil.copytree, source, dirs_exist_ok=True)


ASK: Command = ("ask", "{input}", "w1 w2 w3", "--store", "{store}", "--threads", "1", "--json")
ONE_THREAD = ("--threads", "1")
OF_A_BUNDLE: tuple[Use, ...] = (
    uses.bundle_session, uses.bundle_session, ("inspect", "{input}"), ("inspect", "{input}", "--json"), ASK,
    ("ask", "{input}", "w1", "--passage", "w3 w4 w5", *ONE_THREAD),
    ("lint", "{input}", "--target", "t4"), ("lint", "{input}", "--target", "cpu"), ("cost", "--bundle", "{input}"),
    ("memory", "build", "{input}", "--corpus", "{corpus}", "-o", "{out}", *ONE_THREAD),
    ("answer", "{input}", "--questions", "{questions}", "--store", "{store}", *ONE_THREAD),
)  # fmt: skip
OF_AN_INT8_BUNDLE = tuple(
    use for use in OF_A_BUNDLE if callable(use) or not {"build", "lint"} & {*use}  # which refuse it
)
QUANTIZE: Command = ("quantize", "{input}", "-o", "{out}", "--cpu", "x86-vnni")
CHANGES: tuple[Command, ...] = (
    ("memory", "verify", "{input}"), ("memory", "verify", "{input}", "--json"), ("memory", "stats", "{input}"),
    ("memory", "convert", "{input}", "-o", "{out}", "--codec", "int4"), ("memory", "compact", "{input}"),
    ("memory", "append", "{input}", "--bundle", "{bundle}", "--corpus", "{corpus}", *ONE_THREAD),
    ("memory", "delete", "{input}", "--id", "1", "--id", "p2"), ("memory", "repair", "{input}"),
    ("memory", "repair", "{input}", "--bundle", "{bundle}", "--corpus", "{corpus}", *ONE_THREAD),
    ("memory", "repair", "{input}", "--rollback"), ("memory", "index", "{input}", "--embeddings", "{embeddings}"),
)  # fmt: skip
OF_A_STORE: tuple[Use, ...] = (
    uses.store_session, uses.store_session, uses.store_session, *CHANGES,
    ("ask", "{bundle}", "w1 w2 w3", "--store", "{input}", *ONE_THREAD),
    ("ask", "{bundle}", "w1 w2 w3", "--store", "{input}", "--no-verify", *ONE_THREAD),
)  # fmt: skip
OF_VECTORS: tuple[Use, ...] = (
    partial(uses.store_session, retrieval="hybrid"), partial(uses.store_session, retrieval="dense"), *CHANGES[:-1],
)  # fmt: skip
OF_A_CORPUS: tuple[Use, ...] = (
    uses.scan_corpus, uses.scan_corpus,
    ("memory", "build", "{stub}", "--corpus", "{input}", "-o", "{out}", "--passages-per-shard", "16", *ONE_THREAD),
    ("memory", "build", "{stub}", "--corpus", "{input}", "-o", "{out}", "--chunk-words", "5", *ONE_THREAD),
)  # fmt: skip
OF_QUESTIONS: tuple[Use, ...] = (
    uses.question_file, uses.question_file,
    ("answer", "{bundle}", "--questions", "{input}", "--store", "{store}", "--predictions", "{out}", *ONE_THREAD),
    ("answer", "{bundle}", "--questions", "{input}", "--store", "{store}", "--passages", "given", *ONE_THREAD),
)  # fmt: skip
OF_VECTOR_FILES: tuple[Use, ...] = (
    uses.index_by_embeddings,
)
OF_A_T5: tuple[Use, ...] = (
    ("init", "--from-t5", "{input}", "-o", "{out}", "--live-proportion", "1/3"),
    ("init", "--from-t5", "{input}", "-o", "{out}", "--architecture", "lumen", "--live-proportion", "1/3"),
    ("convert", "{input}", "--from", "huggingface", "-o", "{out}"),
    ("convert", "{input}", "--from", "fid", "-o", "{out}"),
)  # fmt: skip

TARGETS = {
    target.name: target for target in (
        Target("bundle manifest", _copy(inputs.BUNDLE_5), ("manifest.json",), OF_A_BUNDLE, True, 4, inputs.STORE_5),
        Target(
            "bundle of schema 4", _copy(inputs.BUNDLE), ("*.json", "calibration/*"), (*OF_A_BUNDLE, QUANTIZE), weight=3
        ),
        Target("INT8 bundle", _copy(inputs.INT8_BUNDLE), ("*.json", "graphs/*"), OF_AN_INT8_BUNDLE,
               store=inputs.INT8_STORE_5),
        Target("bundle of now", inputs.new_bundle, ("*.json", "graphs/*"), OF_A_BUNDLE, quick=False, weight=2),
        Target("fid bundle", _copy(inputs.FID_BUNDLE), ("*.json", "graphs/*"), (uses.fid_session,)),
        Target("graphs", _copy(inputs.BUNDLE_5), ("graphs/*.onnx",), OF_A_BUNDLE, weight=3, store=inputs.STORE_5),
        Target("weights", _copy(inputs.BUNDLE_5), ("graphs/weights.data",), OF_A_BUNDLE, store=inputs.STORE_5),
        Target("tokenizer", _copy(inputs.BUNDLE_5), ("tokenizer.json",), OF_A_BUNDLE, weight=2, store=inputs.STORE_5),
        Target(
            "ranges", _copy(inputs.BUNDLE), ("calibration/*",),
            (uses.table_of_ranges, uses.table_of_ranges, QUANTIZE),
        ),
        Target(
            "parity record", _copy(inputs.BUNDLE), ("parity.json",),
            (uses.parity_record, uses.parity_record, ("inspect", "{input}")),
        ),
        Target(
            "engines", inputs.bundle_with_engines, ("engines/*/*",),
            (uses.engine_record, uses.engine_record, ("inspect", "{input}"), ("inspect", "{input}", "--json")),
        ),
        Target("store manifest", inputs.new_store, ("manifest.json", "manifests/*"), OF_A_STORE, weight=4),
        Target(
            "segmented store", inputs.segmented_store,
            ("manifest.json", "shard-lists/*", "texts/*", "segments/*/*", "tombstones/*", "shards/*"), OF_A_STORE,
            weight=4,
        ),
        Target("store replicas", inputs.new_store, ("replicas/**/*", "manifest.json"), OF_A_STORE, weight=2),
        Target("store of schema 3", _copy(inputs.STORE_5), ("**/*",), OF_A_STORE, weight=2),
        Target("fp16 shards", _copy(inputs.STORE), ("shards/*",), OF_A_STORE),
        *(
            Target(f"{codec} codec", _copy(inputs.GOLDEN / f"store-{codec}"), ("shards/*", "codec*"), OF_A_STORE)
            for codec in ("int8", "int4", "pq8x", "pq16x")
        ),
        Target("rq8x codec", inputs.residual_store, ("shards/*", "codec*", "manifest.json"), CHANGES),
        Target("tombstones", _copy(inputs.TANTIVY_STORE), ("tombstones/*",), OF_A_STORE),
        Target("texts", inputs.new_store, ("*.sqlite",), OF_A_STORE, weight=3),
        Target("tantivy", _copy(inputs.TANTIVY_STORE), ("index*/*",), OF_A_STORE, weight=3),
        Target("vectors", inputs.dense_store, ("vectors/*",), OF_VECTORS, weight=2),
        Target(
            "codes of vectors", _copy(inputs.GOLDEN / "store6" / "store-segments"), ("vectors/*",), OF_VECTORS, weight=2
        ),
        Target("store's encoder", inputs.dense_store, ("encoders/*/*",), OF_VECTORS, weight=2),
        Target(
            "sentence encoder", inputs.encoder, ("*",),
            (uses.index_by_encoder, ("memory", "index", "{own_store}", "--encoder", "{input}", *ONE_THREAD)),
        ),
        Target("embeddings", inputs.embeddings, ("*.npy",), OF_VECTOR_FILES),
        Target("ids of embeddings", inputs.embeddings, ("*.jsonl",), OF_VECTOR_FILES),
        *(Target(f"corpus {ending}", partial(inputs.corpus, ending), ("*",), OF_A_CORPUS, weight=2) for ending in
          inputs.CORPUS_ENDINGS),
        *(Target(f"questions {ending}", partial(inputs.questions, ending), ("*",), OF_QUESTIONS) for ending in
          inputs.QUESTION_ENDINGS),
        Target("KILT's questions", inputs.kilt, ("*",), OF_QUESTIONS[:-1]),
        Target(
            "ids to delete", inputs.ids, ("*",),
            (uses.id_file, ("memory", "delete", "{own_store}", "--ids", "{input}/ids.jsonl")), weight=1,
        ),
        Target("policy", inputs.policy, ("*",), (uses.policy,)),
        Target("gate", inputs.gate, ("*",), (uses.gate,)),
        Target("machine", inputs.machine, ("targets/*",), (uses.machine,)),
        Target("name map", inputs.name_map, ("*",), (uses.name_map,)),
        Target("session's arguments", inputs.nothing, (), (uses.arguments_of_a_session,), weight=3),
        Target("session's options", inputs.nothing, (), (uses.options_of_a_session,)),
        Target("options", inputs.nothing, (), (uses.odd_command,), weight=2),
        Target("checkpoint", _copy(inputs.GOLDEN / "checkpoint"), ("*",), (uses.checkpoint,), quick=False, weight=3),
        *(
            Target(f"T5 {storage}", partial(inputs.t5, storage), ("*",), OF_A_T5, quick=False)
            for storage in inputs.STORAGE
        ),
        Target(
            "FiD", inputs.fid, ("*",),
            (("convert", "{input}", "--from", "fid", "-o", "{out}"),
             ("init", "--from-fid", "{input}", "-o", "{out}", "--live-proportion", "2/3")),
            quick=False, weight=2,
        ),
        *(
            Target(
                golden, partial(inputs.t5x, golden), ("checkpoint/**/*", "checkpoint/**/.*", "config.json"),
                (("convert", "{input}/checkpoint", "--from", "t5x", "--config", "{input}/config.json", "--map",
                  "{input}/map.yaml", "-o", "{out}"),), quick=False,
            ) for golden in inputs.T5X
        ),
        Target("sentencepiece", inputs.sentencepiece, ("*",), (uses.tokenizer_of_a_checkpoint,), quick=False, weight=2),
        Target("unigram tokenizer", inputs.unigram, ("*",), (uses.tokenizer_of_a_checkpoint,), quick=False, weight=2),
        Target("training", inputs.training, ("*",), (uses.training,), quick=False),
    )
}  # fmt: skip


PLANTED = {
    f"planted: {use.__name__}": Target(f"planted: {use.__name__}", inputs.policy, ("*",), (use,))
    for use in (uses.fails, uses.allocates, uses.writes_outside, uses.ends, uses.hangs)
}
"""What must be seen, each by the second use of a process: the first is that of the sound input."""


def target_of(name: str) -> Target:
    """A target by its name, planted ones too."""
    return PLANTED[name] if name in PLANTED else TARGETS[name]
