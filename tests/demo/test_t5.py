"""The demo's T5, and how it was written: what the ablations begin with (docs/measurements/ablations-demo.md)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import T5ForConditionalGeneration

from glimmer_export.exporter.checkpoint import read_checkpoint, write_checkpoint
from glimmer_export.exporter.checkpoint.from_t5 import convert_t5
from glimmer_export.exporter.checkpoint.options import ModelOptions
from glimmer_export.exporter.demo.cloze import generate_cloze
from glimmer_export.exporter.stages.load import model_from_weights
from glimmer_export.exporter.training.collator import Collator
from glimmer_export.exporter.training.dev import dev_counts, scores_from_counts
from glimmer_export.exporter.training.rows import rows_from_world
from tests.demo.t5_directory import write_t5
from tests.t5_factory import fid_from_t5, random_tokens
from tests.training.short import demo_text

T5 = Path(__file__).parent / "t5"
QUESTIONS = 40


@pytest.fixture(scope="module")
def fid(once) -> Path:
    """The T5 as the FiD that it was trained as."""

    def make(directory: Path) -> None:
        options = ModelOptions("fid", question_length=16, passage_length=40, num_retrieved=10, max_new_tokens=8)
        config, tensors = convert_t5(T5, options, seed=0)
        write_checkpoint(directory / "fid", config, tensors, T5 / "tokenizer.json")

    return once("demo-t5-fid", make) / "fid"


def test_transformers_reads_it_as_we_do():
    theirs = T5ForConditionalGeneration.from_pretrained(T5, dtype=torch.float32).eval()
    text, says = random_tokens((2, 9), seed=0), random_tokens((2, 4), seed=1)
    mask = torch.ones_like(text)
    ours = fid_from_t5(theirs)
    # Embedding and output projection are two: a T5 that has one for both says nothing that it has learned.
    assert not torch.equal(ours.lm_head.weight, ours.shared.weight)
    states = ours.encode_joined(text[:, None], mask[:, None])[:, 0]
    expected = theirs(input_ids=text, attention_mask=mask, decoder_input_ids=says).logits
    torch.testing.assert_close(ours.decode(says, states, mask), expected, atol=1e-3, rtol=1e-3)


def test_a_fid_is_written_as_the_t5_that_it_is(fid, tmp_path):
    write_t5(fid, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        path.name: path.read_bytes() for path in T5.iterdir()
    }


def test_it_finds_what_is_missing(fid):
    """Of names that it was not trained on, in one of the passages, each of two facts; a guess is right of a tenth."""
    world = generate_cloze("test", QUESTIONS, seed=0, missing="values")
    read = read_checkpoint(fid)
    model = model_from_weights(read.config, {name: tensor.float() for name, tensor in read.tensors.items()})
    counts = dev_counts(model, Collator(rows_from_world(world, demo_text())), 10, None)
    assert scores_from_counts(counts, ["cloze"]).em > 0.5
