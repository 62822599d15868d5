"""Tiny random checkpoints of every architecture, each exported once for all tests, with a store of one corpus.

A plugin, which tests/conftest.py names: the fixtures are of the session, whichever folder asks for them.
"""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

import glimmer_export.runtime.contract
from glimmer_export.calibration.load_graph import load_graph as load_verified
from glimmer_export.exporter.bundle import FormOptions, export_bundle
from glimmer_export.exporter.bundle.forms import DEFAULT_FORMS
from glimmer_export.exporter.checkpoint import CheckpointConfig, random_weights, read_checkpoint, write_checkpoint
from glimmer_export.exporter.demo.world import CHECKPOINT
from glimmer_export.exporter.graphs import ExportedGraph, weights_file
from glimmer_export.exporter.graphs.write import write_graph
from glimmer_export.exporter.memory import build_store
from glimmer_export.exporter.stages import GlimmerModel, model_from_checkpoint
from glimmer_export.runtime import Answer, Session
from glimmer_export.runtime.contract import MANIFEST, Forms, GraphIO, ModelShape, graph_io, read_manifest
from tests.bundle_factory import VOCABULARY, WORDS, entry, rewrite, write_rows, write_tokenizer
from tests.once import Once

__all__ = [
    "CASCADES", "CORPUS", "FAST", "PAPER_FORM", "QUESTIONS", "RERANKERS", "REWRITTEN_VARIANTS", "VARIANTS", "Exported",
    "copy_bundle", "load_graph", "make_checkpoint", "question_answered", "update_manifest", "write_alone",
]  # fmt: skip

# So small a product is not worth a second thread, which waits for its core wherever something else runs there.
torch.set_num_threads(1)

TINY: dict[str, Any] = {
    "vocab_size": len(VOCABULARY), "d_model": 32, "d_kv": 8, "d_ff": 48, "num_heads": 4, "num_memory_layers": 1,
    "num_stage_a_layers": 0, "num_stage_b_layers": 0, "num_decoder_layers": 2, "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16, "question_length": 12, "passage_length": 24, "num_retrieved": 5,
    "max_new_tokens": 6,
}
GLIMMER = {"architecture": "glimmer", "num_stage_a_layers": 1, "num_stage_b_layers": 1, "num_selected": 2}
LUMEN = {"architecture": "lumen", "num_stage_b_layers": 2}
V1_0 = {"feed_forward_proj": "relu", "tie_word_embeddings": True}
WIDE_HEADS = {"num_heads": 3, "d_kv": 16}
OPTIONS = {"score_pooling": "mean", "memory_final_norm": True}
TWO_LAYERS = {"num_stage_a_layers": 2}
DEEP_MEMORY = {"num_memory_layers": 2, "num_decoder_layers": 1}

FAST: dict[str, dict[str, Any]] = {
    "glimmer": GLIMMER,
    "glimmer, every option": {
        **GLIMMER, **OPTIONS, **DEEP_MEMORY, **TWO_LAYERS, "separate_question_encoder": True, "separate_reranker": True,
    },
    "glimmer, exact algebra": GLIMMER,
    "glimmer, exact algebra, two layers": {**GLIMMER, **V1_0, **WIDE_HEADS, **TWO_LAYERS},
    "lumen": {**LUMEN, **V1_0, **WIDE_HEADS, "separate_question_encoder": True},
    "memory_fid": {"architecture": "memory_fid", "memory_final_norm": True},
    "fid": {"architecture": "fid", "num_memory_layers": 0, "num_stage_b_layers": 2},
}
"""What every run of the tests exports: all architectures, and every option somewhere."""
SLOW: dict[str, dict[str, Any]] = {
    "glimmer, mean pooling and memory norm": {**GLIMMER, **OPTIONS},
    "glimmer, separate question encoder": {**GLIMMER, "separate_question_encoder": True},
    "glimmer, v1.0": {**GLIMMER, **V1_0, **WIDE_HEADS},
    "glimmer, deep memory": {**GLIMMER, **DEEP_MEMORY},
    "lumen, shared question encoder": LUMEN,
    "memory_fid, v1.0": {"architecture": "memory_fid", **V1_0},
    "fid, its own code": {
        "architecture": "fid", "num_memory_layers": 0, "num_stage_b_layers": 2, "question_layout": "joined",
        "input_template": "{question} {title} {text}", "question_length": 24, "question_eos": False,
        "passage_eos": False, "cross_attention_bias": True,
    },
    "fid, v1.0": {"architecture": "fid", "num_memory_layers": 0, "num_stage_b_layers": 2, **V1_0, **WIDE_HEADS},
}
CODECS = {"glimmer, codecs": GLIMMER, "lumen, codecs": LUMEN}
"""Variants whose graphs decode every codec of a store; the others decode fp16 alone."""
RERANKERS = {
    "glimmer, separate reranker": {**GLIMMER, "separate_reranker": True},
    "glimmer, separate reranker, two layers": {**GLIMMER, **V1_0, **TWO_LAYERS, "separate_reranker": True},
}
"""Stage A of its own layers, lazy; in the papers' form and with a mean it is among `every option`."""
CASCADES = {
    "glimmer, cascade": {**GLIMMER, **TWO_LAYERS, "num_shortlisted": 3},
    "glimmer, cascade of a separate reranker": {
        **GLIMMER, **V1_0, **TWO_LAYERS, "separate_reranker": True, "num_shortlisted": 3,
    },
}
"""Stage A ranks three of the five retrieved."""
BOTH_FORMS = {
    "glimmer, both forms": GLIMMER, "memory_fid, both forms": {"architecture": "memory_fid", "memory_final_norm": True}
}
"""Variants whose decoder is there with absorbed and with cached cross-attention."""
EXACT_ALGEBRA = FormOptions(stage_a=None, cross_attention="absorbed", codecs=("fp16",))
PAPER_FORM = FormOptions(stage_a="full", cross_attention="cached", codecs=("fp16",))
FORMS = dict.fromkeys(
    (
        "glimmer, exact algebra", "glimmer, exact algebra, two layers", "memory_fid, v1.0", "fid, v1.0", *RERANKERS,
        *CASCADES,
    ),
    EXACT_ALGEBRA,
) | dict.fromkeys(CODECS, replace(EXACT_ALGEBRA, codecs=tuple(glimmer_export.runtime.contract.CODECS))) | dict.fromkeys(
    BOTH_FORMS, replace(PAPER_FORM, cross_attention="both")
)
"""Variants whose graphs are not in the papers' form."""
SAME_WEIGHTS = {
    "glimmer, exact algebra": "glimmer", "glimmer, both forms": "glimmer", "memory_fid, both forms": "memory_fid",
}
"""One checkpoint in several forms."""
VARIANTS = [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
QUICK = ("glimmer, every option", "glimmer, exact algebra, two layers", "memory_fid")
REWRITTEN_VARIANTS = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in FAST | SLOW]
"""For tests that do much on each: between them they have every graph but FiD's, and every option."""

NUM_PASSAGES = 40
QUESTIONS = [
    "w0 w7", "w1", "w2 w3 w4 w5 w6 w7 w8 w9 w10 w11 w12", "w20 w31 w42 w53", "w14 w15 w16", "w59 w58", "w33",
    "w8 w44 w9",
]
"""Of one word up to question_length, with EOS."""


def _corpus() -> list[dict[str, Any]]:
    """Passages of a few words up to more than passage_length, ids of both types."""
    random = np.random.default_rng(5)
    lengths = [int(length) for length in random.integers(2, 26, NUM_PASSAGES)]
    texts = [" ".join(random.choice(WORDS, length)) for length in lengths]
    titles = [str(title) for title in random.choice(WORDS, NUM_PASSAGES)]
    return [
        {"id": number if number % 2 else f"p{number}", "title": titles[number], "text": text}
        for number, text in enumerate(texts)
    ]


CORPUS = _corpus()


@dataclass(frozen=True)
class Exported:
    """One variant on disk, and its torch model. Read only: a test that changes something takes a copy."""

    variant: str
    once: Once

    @cached_property
    def directory(self) -> Path:
        return self.once(self.variant, self._export, for_all_runs=True)

    @cached_property
    def graphs(self) -> list[ExportedGraph]:
        """What the export said of each."""
        return pickle.loads((self.directory / "graphs.pickle").read_bytes())

    @property
    def checkpoint(self) -> Path:
        return self.directory / "checkpoint"

    @property
    def bundle(self) -> Path:
        return self.directory / "bundle"

    @property
    def corpus(self) -> Path:
        return self.directory / "corpus.jsonl"

    @cached_property
    def store(self) -> Path:
        return self.once(f"{self.variant}, store", self._build_store, for_all_runs=True) / "store"

    @cached_property
    def model(self) -> GlimmerModel:
        return model_from_checkpoint(read_checkpoint(self.checkpoint))

    @property
    def shape(self) -> ModelShape:
        return self.model.config.shape

    @property
    def io(self) -> dict[str, GraphIO]:
        return graph_io(self.shape, self.forms)

    @property
    def forms(self) -> Forms:
        return read_manifest(self.bundle).forms

    def graph(self, name: str) -> Path:
        """The file of a graph."""
        return self.bundle / "graphs" / f"{name}.onnx"

    @cached_property
    def session(self) -> Session:
        """A session for every test that only asks."""
        return Session.open(self.bundle, self.store, threads=1)

    def _export(self, directory: Path) -> None:
        make_checkpoint(directory / "checkpoint", self.variant)
        graphs = export_bundle(directory / "checkpoint", directory / "bundle", FORMS.get(self.variant, PAPER_FORM))
        (directory / "graphs.pickle").write_bytes(pickle.dumps(graphs))
        write_rows(directory / "corpus.jsonl", CORPUS)

    def _build_store(self, directory: Path) -> None:
        build_store(self.bundle, self.corpus, directory / "store", passages_per_shard=16, threads=1)


def make_checkpoint(directory: Path, variant: str, *, tokenizer: bool = True, **changes: Any) -> Path:
    """Write a checkpoint whose answers depend on what is read, and which of its own accord stops early now and then."""
    variants = FAST | SLOW | CODECS | RERANKERS | CASCADES | BOTH_FORMS
    config = CheckpointConfig(**{**TINY, **variants[variant], **changes})
    weights = random_weights(config, seed=len(SAME_WEIGHTS.get(variant, variant)))
    generator = torch.Generator().manual_seed(1)
    for name, weight in weights.items():
        if "layer_norm" in name or name in ("score.bias", "shortlist_score.bias"):
            weight.uniform_(0.5, 1.5, generator=generator)
        elif "EncDecAttention" in name:
            weight.mul_(2)  # so that an answer is of the passages, not of the token before
        elif "Attention.q" in name or "relative_attention_bias" in name:
            weight.mul_(2)  # so that attention picks tokens and positions out
    if config.tie_word_embeddings:
        weights["shared.weight"].mul_(0.2)  # or each token would be followed by itself
    output = weights["shared.weight" if config.tie_word_embeddings else "lm_head.weight"]
    output[config.eos_token_id] *= 1.3
    file = None
    if tokenizer:
        file = directory.with_name(f"{directory.name}.tokenizer.json")
        write_tokenizer(file)
    write_checkpoint(directory, config, weights, file)
    return directory


@pytest.fixture(scope="session")
def exported(once: Once) -> Callable[[str], Exported]:
    """Gives a variant by name, exported when first asked for."""
    return cache(lambda name: Exported(name, once))


@pytest.fixture(scope="session")
def glimmer(exported: Callable[[str], Exported]) -> Exported:
    """The architecture that has every graph a test of one of them may want."""
    return exported("glimmer")


@pytest.fixture(scope="session")
def demo_bundles(once: Once) -> dict[str, Path]:
    """The demo checkpoint's bundles: as the options' defaults have it, and in the paper's form."""
    forms = {"exact algebra": replace(DEFAULT_FORMS, codecs=("fp16",)), "paper's form": PAPER_FORM}
    return {
        name: once(f"demo, {name}", lambda directory, form=form: export_bundle(CHECKPOINT, directory / "bundle", form))
        / "bundle"
        for name, form in forms.items()
    }


def question_answered(source: Exported, wanted: Callable[[Answer], bool]) -> str:
    """The first whose answer is as wanted, of QUESTIONS and then of pairs of words: which, random weights decide."""
    pairs = (f"{first} {second}" for first in WORDS for second in WORDS)
    return next(text for text in (*QUESTIONS, *pairs) if wanted(source.session.answer(text)))


def copy_bundle(source: Exported, directory: Path) -> Path:
    """A bundle to damage."""
    return Path(shutil.copytree(source.bundle, directory))


def load_graph(path: Path) -> ir.Model:
    """A graph as passes read it, that holds its weights itself, to be changed, run from memory and saved anywhere."""
    model = load_verified(path)
    ir.external_data.load_to_model(model)
    return model


def write_alone(model: ir.Model, directory: Path, name: str) -> Path:
    """The file of a graph that is written with weights of its own."""
    directory.mkdir(exist_ok=True)
    with weights_file(directory) as weights:
        return write_graph(model, name, weights).path


def update_manifest(bundle: Path, graph: str) -> None:
    """Write into the manifest the sizes and digests that a graph's files have now."""
    manifest = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
    files = [entry(bundle, path) for path in sorted((bundle / "graphs").glob(f"{graph}.onnx*"))]
    manifest["graphs"][graph]["files"] = [vars(file) for file in files]
    rewrite(bundle / MANIFEST, **manifest)
