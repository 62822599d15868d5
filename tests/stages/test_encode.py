"""`GlimmerModel.encode`, of which parity, demo, training and transformers are made, against the stages put together.

The stages are put together here as each of the four did it on its own before, and must give the same bits. FiD's
encoder is Hugging Face's T5 over question and passage together.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from glimmer_export.exporter.checkpoint import CheckpointConfig, random_weights, read_checkpoint
from glimmer_export.exporter.checkpoint.init import init_from_t5
from glimmer_export.exporter.checkpoint.options import ModelOptions
from glimmer_export.exporter.parity.reference import TorchReference
from glimmer_export.exporter.stages import GlimmerModel, Masked, model_from_checkpoint
from glimmer_export.exporter.tolerances import TOLERANCES, max_abs_error
from tests.t5_factory import make_t5, save_t5

TINY = {
    "vocab_size": 61, "d_model": 24, "d_kv": 8, "d_ff": 40, "num_heads": 2, "num_memory_layers": 2,
    "num_stage_a_layers": 2, "num_stage_b_layers": 1, "num_decoder_layers": 1, "question_length": 6,
    "passage_length": 9, "num_retrieved": 4, "num_selected": 2, "max_new_tokens": 5,
}  # fmt: skip
MODELS = {
    "glimmer": {},
    "glimmer, mean pooling": {"score_pooling": "mean"},
    "glimmer, separate reranker": {"separate_reranker": True},
    "glimmer, separate reranker, mean pooling": {"separate_reranker": True, "score_pooling": "mean"},
    "lumen": {"num_stage_a_layers": 0, "num_selected": None},
    "lumen, own question encoder": {
        "num_stage_a_layers": 0, "num_selected": None, "separate_question_encoder": True,
    },
    "memory_fid": {"num_stage_a_layers": 0, "num_stage_b_layers": 0, "num_selected": None},
    "fid": {"num_memory_layers": 0, "num_stage_a_layers": 0, "num_selected": None},
}  # fmt: skip
PASSAGES = 4


def model_of(name: str) -> GlimmerModel:
    config = CheckpointConfig(**{**TINY, **MODELS[name], "architecture": name.partition(",")[0]})
    model = GlimmerModel(config)
    model.load_state_dict(random_weights(config, seed=3))
    return model.requires_grad_(False).eval()


def texts(seed: int = 0, question: int = 6, passage: int = 9, batch: int = 2) -> tuple[Masked, Masked]:
    """Questions and passages of different lengths, padded; the last passage of the last row is absent."""
    random = torch.Generator().manual_seed(seed)

    def padded(*dims: int) -> Masked:
        lengths = torch.randint(1, dims[-1] + 1, dims[:-1], generator=random)
        mask = (torch.arange(dims[-1]) < lengths[..., None]).int()
        return Masked(torch.randint(3, 61, dims, generator=random).int() * mask, mask)

    asked, read = padded(batch, question), padded(batch, PASSAGES, passage)
    read.mask[-1, -1] = 0
    return asked, read


def composed(model: GlimmerModel, asked: Masked, read: Masked, m: int | None) -> tuple[Tensor, ...]:
    """States, mask, and of models that rank scores and selected: row by row, out of the stages."""
    traits = model.config.shape.traits
    rows = []
    for row in range(len(asked.mask)):
        (ids, mask), (texts, present) = (
            Masked(values.values[row : row + 1], values.mask[row : row + 1]) for values in (asked, read)
        )
        if not traits.has_memory:
            joined = torch.cat([ids.expand(PASSAGES, -1), texts[0]], 1)[None]
            there = present[0].amax(-1, keepdim=True)
            joined_mask = (torch.cat([mask.expand(PASSAGES, -1), present[0]], 1) * there)[None]
            rows.append((model.encode_joined(joined, joined_mask).flatten(1, 2), joined_mask.flatten(1)))
            continue
        memory = model.encode_memory(texts[0], present[0])[None]
        if not traits.encodes_question:
            rows.append((model.live_encoder.final_layer_norm(memory).flatten(1, 2), present.flatten(1)))
            continue
        question = model.encode_question(ids, mask)
        if not traits.selects:
            states = model.stage_b(model.join(question, memory), mask, present)
            rows.append((states.flatten(1, 2), model.readable_mask(mask, present).flatten(1)))
            continue
        scores, states = model.stage_a(question, mask, memory, present)
        if model.config.separate_reranker:
            states = model.join(question, memory)
        ranking = sorted(range(PASSAGES), key=lambda place: -float(scores[0, place]))
        kept = sorted(ranking[:m])
        states = model.stage_b(states[:, kept], mask, present[:, kept])
        readable = model.readable_mask(mask, present[:, kept]).flatten(1)
        rows.append((states.flatten(1, 2), readable, scores, torch.tensor([kept])))
    return tuple(torch.cat(values) for values in zip(*rows, strict=True))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("m", [2, None])
def test_encode_gives_the_bits_of_its_stages(name, m):
    model, (asked, read) = model_of(name), texts()
    # One row at a time: the same products of the same sizes.
    for row in range(2):
        one = [Masked(values.values[row : row + 1], values.mask[row : row + 1]) for values in (asked, read)]
        found, expected = model.encode_texts(*one, m), composed(model, *one, m)
        assert all(torch.equal(value, wanted) for value, wanted in zip(found, expected, strict=False))
        assert (found.scores is not None) == model.config.shape.traits.selects == (len(expected) == 4)
        if model.config.shape.traits.has_memory:
            memory = model.encode_memory(one[1].values[0], one[1].mask[0])[None]
            given = model.encode(one[0], Masked(memory, one[1].mask), m)
            assert torch.equal(given.states, found.states)
            assert torch.equal(given.mask, found.mask)


@pytest.mark.parametrize("name", MODELS)
def test_rows_of_a_batch_know_nothing_of_each_other(name):
    model, (asked, read) = model_of(name), texts()
    found, expected = model.encode_texts(asked, read, 2), composed(model, asked, read, 2)
    assert torch.equal(found.mask, expected[1])
    kept = found.mask.bool()
    limit = TOLERANCES["fp32"].limit(expected[0].numpy())
    assert max_abs_error(found.states[kept].numpy(), expected[0][kept].numpy()) <= limit
    if found.selected is not None:
        assert torch.equal(found.selected, expected[3])


def test_the_earlier_of_equal_passages_is_read():
    model, (asked, read) = model_of("glimmer"), texts()
    read.mask[-1, -1] = 1
    model.score.weight.zero_()
    assert model.encode_texts(asked, read, 2).selected.tolist() == [[0, 1], [0, 1]]


def test_an_absent_passage_is_read_last_and_its_question_never():
    model, (asked, read) = model_of("glimmer"), texts()
    read.mask[1, :3] = 0
    read.mask[1, 3] = 1
    found = model.encode_texts(asked, read, 2)
    assert found.scores[1].isinf().tolist() == [True, True, True, False]
    assert found.selected[1].tolist() == [0, 3]
    assert found.mask[1].unflatten(0, (2, -1)).any(1).tolist() == [False, True]


def test_gradients_reach_scores_and_states_but_not_through_the_choice():
    model, (asked, read) = model_of("glimmer").requires_grad_(True), texts()
    read.mask[-1, -1] = 1
    found = model.encode_texts(asked, read, 2)
    found.scores.sum().backward(retain_graph=True)
    assert model.score.weight.grad is not None
    model.zero_grad()
    found.states.sum().backward()
    assert model.score.weight.grad is None
    assert model.live_encoder.block[0].layer[0].SelfAttention.q.weight.grad is not None


def test_the_reference_pads_to_the_models_lengths():
    """However short the texts: parity's answer is that of lengths that no trimming has touched."""
    model = model_of("glimmer")
    question, passages = [7, 8, 1], [[9, 10, 1], [11, 1], [12, 13, 14, 1], [15, 1]]
    reference = TorchReference(model)
    found = reference.answer(question, passages, reference.memory(passages), 2)
    asked, read = texts(batch=1)
    for padded, rows in ((asked, [question]), (read, passages)):
        values, mask = padded.values.reshape(len(rows), -1), padded.mask.reshape(len(rows), -1)
        values.zero_(), mask.zero_()
        for place, row in enumerate(rows):
            values[place, : len(row)] = torch.tensor(row)
            mask[place, : len(row)] = 1
    expected = model.encode_texts(asked, read, 2)
    assert found.scores.tolist() == expected.scores[0].tolist()
    assert found.selected == expected.selected[0].tolist()


def test_fid_encodes_as_hugging_faces_t5(tmp_path):
    t5 = make_t5("v1.1")
    checkpoint = tmp_path / "fid"
    options = ModelOptions("fid", question_length=6, passage_length=9)
    init_from_t5(save_t5(t5, tmp_path / "t5"), checkpoint, options)
    model = model_from_checkpoint(read_checkpoint(checkpoint))
    asked, read = texts()
    read.mask[-1, -1, 0] = 1
    found = model.encode_texts(asked, read, None)
    for row in range(2):
        ids = torch.cat([asked.values[row].expand(PASSAGES, -1), read.values[row]], 1)
        mask = torch.cat([asked.mask[row].expand(PASSAGES, -1), read.mask[row]], 1)
        expected = t5.encoder(input_ids=ids.long(), attention_mask=mask.long()).last_hidden_state
        kept = mask.bool()
        states = found.states[row].unflatten(0, (PASSAGES, -1))
        limit = TOLERANCES["fp32"].limit(expected.numpy())
        assert max_abs_error(states[kept].numpy(), expected[kept].numpy()) <= limit
