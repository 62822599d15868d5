"""A plain T5 exported by optimum answers as our FiD does: in torch, and as a bundle run by the session."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration

from glimmer_export.exporter.bench.peers import fid_tokens, ort_model_from_t5
from glimmer_export.exporter.checkpoint import CheckpointConfig, ModelOptions, read_checkpoint
from glimmer_export.exporter.checkpoint.init import init_from_t5
from glimmer_export.exporter.parity.reference import TorchReference
from glimmer_export.exporter.stages import GlimmerModel, model_from_checkpoint
from glimmer_export.runtime.contract import CheckpointError, OutputError
from tests.bundle_factory import VOCABULARY
from tests.exported import CORPUS, QUESTIONS
from tests.optimum_line import needs_optimum
from tests.reference_answers import ROWS
from tests.t5_factory import make_t5, random_tokens, save_t5

# optimum reads the class of past key values, which transformers is about to drop, while it generates.
pytestmark = [needs_optimum, pytest.mark.filterwarnings("ignore::FutureWarning:optimum")]

LENGTHS = {"question_length": 9, "passage_length": 14}
STEPS = 12


def joined(config: CheckpointConfig, question: list[int], passages: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Ids and mask (k, question_length + passage_length): the question's block, padded, in front of each passage."""
    rows = [
        [*question, *[0] * (config.question_length - len(question)), *passage,
         *[0] * (config.passage_length - len(passage))]
        for passage in passages
    ]
    ids = torch.tensor(rows)
    return ids, (ids != config.pad_token_id).long()


def t5_from_fid(model: GlimmerModel) -> T5ForConditionalGeneration:
    """The way back: Hugging Face's T5 with the weights of a FiD checkpoint."""
    config = model.config
    fields = (
        "vocab_size", "d_model", "d_kv", "d_ff", "num_heads", "num_decoder_layers", "relative_attention_num_buckets",
        "relative_attention_max_distance", "layer_norm_epsilon", "feed_forward_proj", "tie_word_embeddings",
        "pad_token_id", "eos_token_id", "decoder_start_token_id",
    )
    theirs = T5ForConditionalGeneration(
        T5Config(num_layers=config.num_live_layers, **{name: getattr(config, name) for name in fields})
    )
    weights = {name.replace("live_encoder.", "encoder."): value for name, value in model.state_dict().items()}
    missing, unexpected = theirs.load_state_dict(weights, strict=False)
    assert set(missing) <= {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"}
    assert not unexpected
    return theirs.eval()


@pytest.mark.parametrize("variant", ["v1.0", "v1.1"])
def test_torch_answers_the_same(variant: str, tmp_path: Path) -> None:
    source = save_t5(make_t5(variant, seed=31), tmp_path / "t5")
    init_from_t5(source, tmp_path / "ckpt", ModelOptions("fid", max_new_tokens=STEPS, **LENGTHS))
    model = model_from_checkpoint(read_checkpoint(tmp_path / "ckpt"))
    theirs = ort_model_from_t5(source, tmp_path / "onnx")
    answers = []
    for seed, num_passages in enumerate([1, 1, 1, 3, 5]):
        question = random_tokens((9 - seed,), seed=seed).tolist()
        passages = [random_tokens((14 - 2 * i,), seed=10 * seed + i).tolist() for i in range(num_passages)]
        expected = fid_tokens(theirs, *joined(model.config, question, passages), max_new_tokens=STEPS)
        assert TorchReference(model).answer(question, passages, None, None).tokens == expected
        answers.append(tuple(expected))
    assert len(set(answers)) > 1


def test_our_bundle_answers_the_same(exported, tmp_path: Path) -> None:
    source = exported("fid")
    config = source.model.config
    theirs = ort_model_from_t5(save_t5(t5_from_fid(source.model), tmp_path / "t5"), tmp_path / "onnx")

    def tokens(text: str, length: int) -> list[int]:
        return [*[VOCABULARY[word] for word in text.split()][: length - 1], config.eos_token_id]

    names = [row["id"] for row in CORPUS]
    answers = set()
    for place, question in enumerate(QUESTIONS):
        ids = names[5 * place : 5 * place + 1 + place % 5]
        passages = [tokens(f"{ROWS[name]['title']} {ROWS[name]['text']}", config.passage_length) for name in ids]
        inputs = joined(config, tokens(question, config.question_length), passages)
        expected = fid_tokens(theirs, *inputs, max_new_tokens=config.max_new_tokens)
        assert list(source.session.answer(question, passages=ids).token_ids) == expected
        answers.add(tuple(expected))
    assert len(answers) > 1


def test_not_a_t5(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected a T5 checkpoint, found another folder"):
        ort_model_from_t5(tmp_path, tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_an_output_that_exists(tmp_path: Path) -> None:
    source = save_t5(make_t5("v1.1"), tmp_path / "t5")
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "kept").write_text("")
    with pytest.raises(OutputError, match="a path that does not exist yet"):
        ort_model_from_t5(source, tmp_path / "onnx")
    assert [path.name for path in (tmp_path / "onnx").iterdir()] == ["kept"]
