"""What docs/measurements/training-base.md says of a step's memory and work is what a step holds and computes."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from torch._subclasses.fake_tensor import FakeTensorMode

from glimmer_export.exporter.checkpoint.t5_shape import T5Shape
from tests.docs.pages import DOCS
from tests.training.step_bytes import Form, Step, count_step, counted_step, form_model, step_batch

REPORT = DOCS / "measurements" / "training-base.json"
SHAPE = T5Shape(
    vocab_size=100, d_model=16, d_kv=4, d_ff=24, num_layers=5, num_heads=2, num_decoder_layers=1,
    feed_forward_proj="gated-gelu", tie_word_embeddings=False,
)
LENGTHS = {"question_length": 5, "passage_length": 7, "num_retrieved": 6}


def small_step(form: Form, *, dropout: float = 0.1, **changes: int) -> Step:
    model = form_model(form.config(SHAPE, **(LENGTHS | changes)), form, dropout)
    return counted_step(model, step_batch(model.config, 2, from_store=form.memory == "frozen"), form)


FORMS = [
    Form("glimmer"), Form("glimmer", gradient_checkpointing=True),
    Form("lumen", memory="frozen", question_encoder="separate"), Form("memory_fid"),
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_tensors_without_values_take_what_real_ones_take(form):
    with FakeTensorMode():
        counted = small_step(form)
    assert counted == small_step(form)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_what_an_encoder_layer_keeps(dropout):
    """The formula of the page, a token's bytes in a text of n."""
    few, more = (small_step(Form("glimmer"), dropout=dropout, memory_layers=layers) for layers in (3, 4))
    d, inner, d_ff, heads = SHAPE.d_model, SHAPE.num_heads * SHAPE.d_kv, SHAPE.d_ff, SHAPE.num_heads

    def kept(n: int) -> int:
        floats = 6 * d + 4 * inner + 4 * d_ff + heads * n
        return 4 * floats + (2 * d + d_ff + 5 * heads * n if dropout else 0)

    questions, k = 2, LENGTHS["num_retrieved"]
    texts = {LENGTHS["passage_length"]: questions * k, LENGTHS["question_length"]: questions}
    kept_by_norms = 4 * sum(rows * n * 2 for n, rows in texts.items())  # a number a token, twice
    assert more.kept - few.kept == sum(rows * n * kept(n) for n, rows in texts.items()) + kept_by_norms


@pytest.mark.slow
@pytest.mark.parametrize("row", json.loads(REPORT.read_text(encoding="utf-8"))["counted"]["sizes"]["base"], ids=str)
def test_the_figures_of_base_are_those_of_a_step(row):
    """Slow for the two hundred layers' operators: seconds a form."""
    form = Form(**{name: row[name] for name in asdict(Form("glimmer"))})
    counted = asdict(count_step("base", form))
    assert counted == {name: row[name] for name in counted}
