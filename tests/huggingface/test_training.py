"""A model that transformers opened trains: its loss, its gradients, parts that are replaced, checkpointed layers."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

import glimmer_export.exporter.huggingface  # noqa: F401  # registers our models
from glimmer_export.exporter.checkpoint import read_checkpoint, write_checkpoint
from glimmer_export.exporter.stages import Masked, model_from_checkpoint
from glimmer_export.exporter.stages.decoder import DecoderBlock
from glimmer_export.exporter.stages.encoder import EncoderBlock
from glimmer_export.exporter.tolerances import TOLERANCES
from glimmer_export.exporter.training.batch import Batch
from glimmer_export.exporter.training.loss import LossSettings, training_loss
from tests.exported import FAST, make_checkpoint
from tests.t5_factory import VARIANTS, fid_from_t5, make_t5, random_tokens

LOGITS = TOLERANCES["t5_logits"]
PASSAGES = 4
RENAMED = "ignore:.*gradient_checkpointing.*:FutureWarning"
"""Since transformers 5.2x it is called activation checkpointing; 4.57 has only this name."""


@pytest.fixture(scope="module", params=[name for name in FAST if name != "glimmer, exact algebra"])
def directory(request, tmp_path_factory) -> Path:
    """A checkpoint of every architecture, and every option somewhere."""
    return make_checkpoint(tmp_path_factory.mktemp("training") / "checkpoint", request.param)


@pytest.fixture(scope="module")
def glimmer(tmp_path_factory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("training") / "glimmer", "glimmer")


@pytest.fixture
def inputs() -> dict[str, Tensor]:
    """Three questions, passages and answers of different lengths; the second question has one passage less."""
    random = torch.Generator().manual_seed(3)

    def texts(*dims: int) -> tuple[Tensor, Tensor]:
        lengths = torch.randint(1, dims[-1] + 1, dims[:-1], generator=random)
        mask = (torch.arange(dims[-1]) < lengths[..., None]).long()
        return torch.randint(3, 60, dims, generator=random) * mask, mask

    ids, mask = texts(3, 6)
    passages, passage_mask = texts(3, PASSAGES, 9)
    passage_mask[1, -1] = 0
    labels = torch.tensor([[7, 8, 30, 1], [9, 1, -100, -100], [12, 40, 1, -100]])
    return {
        "input_ids": ids, "attention_mask": mask, "passage_input_ids": passages,
        "passage_attention_mask": passage_mask, "labels": labels,
    }  # fmt: skip


def row(inputs: dict[str, Tensor], place: int) -> dict[str, Tensor]:
    """One row alone, without what pads question and answer."""
    alone = {name: values[place : place + 1] for name, values in inputs.items()}
    length = int(alone["attention_mask"].sum())
    alone |= {name: alone[name][:, :length] for name in ("input_ids", "attention_mask")}
    return alone | {"labels": alone["labels"][alone["labels"] != -100][None]}


def gradients(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    model.zero_grad()
    torch.manual_seed(2)
    model(**inputs).loss.backward()
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def test_the_loss_is_trainings(directory, inputs):
    """Ranking loss included, with its gradient: that of `training_loss` over the model that export reads."""
    model, reference = AutoModel.from_pretrained(directory), model_from_checkpoint(read_checkpoint(directory))
    reference.requires_grad_(True)
    question, passages = (Masked(inputs[f"{of}input_ids"], inputs[f"{of}attention_mask"]) for of in ("", "passage_"))
    batch = Batch(question, passages, inputs["labels"], torch.zeros(3, PASSAGES, dtype=torch.bool))
    settings = LossSettings(ranking_weight=0.5, temperature=2.0, divergence="lm_to_rank", likelihood="mean")
    for chosen in (None, settings):
        if chosen is not None:
            model.loss_settings = chosen
        expected = training_loss(reference, batch, chosen or LossSettings())
        output = model(**inputs)
        torch.testing.assert_close(output.loss, expected.total(chosen or LossSettings()))
        assert bool(expected.ranking > 0) == model.config.checkpoint_config.shape.traits.selects
        assert output.logits.shape == (3, 4, model.config.vocab_size)
        reference.zero_grad()
        expected.total(chosen or LossSettings()).backward()
        found = gradients(model, inputs)
        for name, weight in reference.named_parameters():
            torch.testing.assert_close(found[name], weight.grad, msg=name)


def test_a_batch_has_the_loss_of_its_rows(directory, inputs):
    """Whatever pads them: the sums of rows read alone, divided by the batch's tokens and questions."""
    model = AutoModel.from_pretrained(directory)
    model.loss_settings = LossSettings(ranking_weight=0)
    batch = model(**inputs)
    counted = inputs["labels"] != -100
    total = torch.zeros(())
    for place in range(3):
        alone = model(**row(inputs, place))
        torch.testing.assert_close(batch.logits[place][counted[place]], alone.logits[0], atol=LOGITS.atol, rtol=1e-4)
        total = total + alone.loss * counted[place].sum()
    torch.testing.assert_close(batch.loss, total / counted.sum())
    expected = nn.functional.cross_entropy(batch.logits[counted], inputs["labels"][counted])
    torch.testing.assert_close(batch.loss, expected)


def test_a_steps_parts_add_up_to_its_loss(directory, inputs):
    """As transformers' Trainer accumulates: each part is told how many answer tokens the step has."""
    model = AutoModel.from_pretrained(directory)
    model.loss_settings = LossSettings(ranking_weight=0)
    whole, tokens = model(**inputs).loss, (inputs["labels"] != -100).sum()
    parts = [{name: values[part] for name, values in inputs.items()} for part in (slice(0, 1), slice(1, 3))]
    found = sum(model(**part, num_items_in_batch=tokens).loss for part in parts)
    torch.testing.assert_close(found, whole)


def test_three_steps_change_every_weight(directory, inputs):
    model = AutoModel.from_pretrained(directory).train()
    model.reference.set_dropout(0.1)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        model(**inputs).loss.backward()
        optimizer.step()
    assert all(weight.requires_grad for weight in model.parameters())
    unchanged = {name for name, weight in model.named_parameters() if torch.equal(weight, before[name])}
    assert unchanged <= {"score.bias"}  # which adds the same to all scores: whatever it is, the ranking is the same
    assert before.keys() == read_checkpoint(directory).tensors.keys()


@pytest.mark.parametrize("variant", VARIANTS)
def test_loss_and_gradients_are_hugging_faces(variant, tmp_path, inputs):
    """FiD with one passage is a T5: labels, their padding and the start token are handled as there."""
    theirs = make_t5(variant, decoder_start_token_id=5).requires_grad_(True).train()
    reference = fid_from_t5(theirs)
    write_checkpoint(tmp_path / "checkpoint", reference.config, reference.state_dict(), None)
    ours = AutoModel.from_pretrained(tmp_path / "checkpoint").train()
    ours.reference.set_dropout(theirs.config.dropout_rate)
    ids, mask, labels = random_tokens((3, 9), seed=1), torch.ones(3, 9, dtype=torch.long), inputs["labels"]
    mask[1, 6:] = 0
    torch.manual_seed(7)
    expected = theirs(input_ids=ids, attention_mask=mask, labels=labels)
    torch.manual_seed(7)
    found = ours(ids, mask, ids[:, None], mask[:, None], labels=labels)
    torch.testing.assert_close(found.loss, expected.loss)
    torch.testing.assert_close(found.logits, expected.logits, atol=LOGITS.atol, rtol=LOGITS.rtol)
    for output in (expected, found):
        output.loss.backward()
    for name, weight in theirs.named_parameters():
        own = name.replace("encoder.", "live_encoder.") if name.startswith("encoder.") else name
        torch.testing.assert_close(ours.get_parameter(own).grad, weight.grad, atol=LOGITS.atol, rtol=1e-4, msg=name)


def test_a_mask_of_the_answer_is_hugging_faces(tmp_path):
    """Padding in front of an answer, which no token is to attend to."""
    theirs = make_t5("v1.1")
    reference = fid_from_t5(theirs)
    write_checkpoint(tmp_path / "checkpoint", reference.config, reference.state_dict(), None)
    ours, ids, mask = AutoModel.from_pretrained(tmp_path / "checkpoint"), random_tokens((2, 9), seed=1), None
    answers, kept = torch.tensor([[0, 7, 8, 9], [0, 0, 0, 7]]), torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    options = {"decoder_input_ids": answers, "decoder_attention_mask": kept}
    expected = theirs(input_ids=ids, attention_mask=mask, **options).logits
    found = ours(ids, mask, ids[:, None], **options).logits
    torch.testing.assert_close(found[kept > 0], expected[kept > 0], atol=LOGITS.atol, rtol=LOGITS.rtol)
    unmasked = ours(ids, mask, ids[:, None], decoder_input_ids=answers).logits
    assert not torch.allclose(unmasked[1, 3], found[1, 3], rtol=0.01)


def test_of_encoder_outputs_there_is_no_ranking_loss(glimmer, inputs):
    model = AutoModel.from_pretrained(glimmer)
    labels = inputs.pop("labels")
    encoded = model.get_encoder()(**inputs)
    with pytest.raises(ValueError, match="ranking loss is of passages"):
        model(encoder_outputs=encoded, labels=labels)
    model.loss_settings = LossSettings(ranking_weight=0)
    torch.testing.assert_close(model(encoder_outputs=encoded, labels=labels).loss, model(**inputs, labels=labels).loss)


class LowRank(nn.Module):
    """What PEFT puts in the place of a linear layer."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(0.3 * torch.randn(2, base.in_features, generator=torch.Generator().manual_seed(0)))
        self.up = nn.Parameter(torch.zeros(base.out_features, 2))

    def forward(self, values: Tensor) -> Tensor:
        return self.base(values) + values @ self.down.T @ self.up.T

    def merged(self) -> nn.Linear:
        merged = copy.deepcopy(self.base)
        merged.weight = nn.Parameter(self.base.weight + self.up @ self.down)
        return merged


def replace_layers(model: nn.Module, kind: type, names: tuple[str, ...], make) -> int:
    """Put `make(layer)` in the place of every layer of that kind and name, by its parent; how many there are."""
    found = [
        name for name, module in model.named_modules()
        if isinstance(module, kind) and name.rpartition(".")[2] in names
    ]
    for name in found:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, make(model.get_submodule(name)))
    return len(found)


@pytest.mark.parametrize("names", [("q", "v"), ("score", "lm_head"), ("k", "o", "wi", "wi_0", "wi_1", "wo")])
def test_what_replaces_a_layer_is_what_runs_and_learns(directory, inputs, names):
    """At any depth, the top included, in `forward` and in `generate`; what is merged gives the same again."""
    model = AutoModel.from_pretrained(directory).requires_grad_(False)
    plain = model(**inputs).loss
    count = replace_layers(model, nn.Linear, names, LowRank)
    if not count:
        assert names == ("score", "lm_head")  # tied, and not ranking
        return
    assert torch.equal(model(**inputs).loss, plain)
    own = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    assert len(own) == 2 * count
    optimizer = torch.optim.Adam(own.values(), lr=0.01)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        (loss := model(**inputs).loss).backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    changed = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert changed == own.keys()
    asked = {name: values for name, values in inputs.items() if name != "labels"}
    learned, answers = model(**inputs), model.generate(**asked, do_sample=False)
    replace_layers(model, LowRank, names, LowRank.merged)
    merged = model(**inputs)
    torch.testing.assert_close(merged.logits, learned.logits, atol=LOGITS.atol, rtol=1e-4)
    assert torch.equal(model.generate(**asked, do_sample=False), answers)
    assert {*model.state_dict()} == {*read_checkpoint(directory).tensors}


def test_more_tokens_reach_forward_and_the_checkpoint(directory, inputs, tmp_path):
    model = AutoModel.from_pretrained(directory)
    size = model.config.vocab_size
    model.resize_token_embeddings(size + 3)
    inputs["input_ids"][0, 0] = inputs["passage_input_ids"][0, 0, 0] = inputs["labels"][0, 0] = size + 2
    output = model(**inputs)
    assert output.logits.shape[-1] == model.reference.config.vocab_size == size + 3
    output.loss.backward()
    assert model.shared.weight.grad[size + 2].any()
    model.save_pretrained(tmp_path / "saved")
    saved = read_checkpoint(tmp_path / "saved")
    assert saved.config.vocab_size == size + 3
    assert torch.equal(saved.tensors["shared.weight"], model.shared.weight)


def test_a_copy_has_weights_of_its_own(glimmer, inputs):
    model = AutoModel.from_pretrained(glimmer)
    plain = model(**inputs).loss
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.score.weight.mul_(3)
        other.shared.weight.mul_(2)
    assert torch.equal(model(**inputs).loss, plain)
    assert not torch.equal(other(**inputs).loss, plain)


@pytest.mark.filterwarnings(RENAMED)
@pytest.mark.parametrize("options", [{}, {"use_reentrant": False}, {"use_reentrant": True}], ids=str)
def test_checkpointing_by_transformers_own_api(directory, inputs, options):
    """Every layer with a gradient to compute runs once more, and the gradients are the same."""
    model = AutoModel.from_pretrained(directory).train()
    model.reference.set_dropout(0.1)
    expected = gradients(model, inputs)
    runs = {True: 0, False: 0}  # by whether autograd records them

    def count(*_: object) -> None:
        runs[torch.is_grad_enabled()] += 1

    for module in model.modules():
        if isinstance(module, (EncoderBlock, DecoderBlock)):
            module.register_forward_pre_hook(count)
    gradients(model, inputs)
    before = dict(runs)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options or None)
    assert model.is_gradient_checkpointing
    found = gradients(model, inputs)
    assert sum(runs.values()) == 2 * sum(before.values()) + before[True]
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, msg=name)
    model.gradient_checkpointing_disable()
    runs.update({True: 0, False: 0})
    gradients(model, inputs)
    assert runs == before


@pytest.mark.filterwarnings(RENAMED)
def test_frozen_embeddings_pass_gradients_on_to_adapters(glimmer, inputs):
    """With reentrant checkpointing a layer has gradients only if its input does: `enable_input_require_grads`."""
    model = AutoModel.from_pretrained(glimmer).requires_grad_(False).train()
    replace_layers(model, nn.Linear, ("q", "v"), LowRank)
    expected = gradients(model, inputs)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
    model.enable_input_require_grads()
    found = gradients(model, inputs)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, msg=name)


def test_a_part_in_evaluation_mode_stays_so(glimmer, inputs):
    """The likelihoods are computed in evaluation mode, and each part is left in its own."""
    model = AutoModel.from_pretrained(glimmer).train()
    model.memory_encoder.eval()
    model(**inputs)
    modes = {name: module.training for name, module in model.named_modules()}
    assert all(mode != name.startswith("memory_encoder") for name, mode in modes.items())


def test_a_model_of_a_config_alone_can_be_trained(directory, inputs):
    """Every weight has a value: of norms 1, of tables of positions T5's deviation."""
    torch.manual_seed(0)
    model = AutoModel.from_config(AutoConfig.from_pretrained(directory))
    for name, weight in model.named_parameters():
        if "layer_norm" in name:
            assert (weight == 1).all()
        elif name != "score.bias":
            deviation = model.config.d_model**-0.5 if "relative" in name else 0.02
            assert 0.6 * deviation < weight.std() < 1.5 * deviation, name
    assert all(gradient.isfinite().all() for gradient in gradients(model, inputs).values())


def test_the_reference_follows_the_config(glimmer, inputs):
    model = AutoModel.from_pretrained(glimmer)
    model.config.num_selected = 1
    assert model.get_encoder()(**{n: v for n, v in inputs.items() if n != "labels"}).selected.shape == (3, 1)
