"""A tiny BERT of random weights as a sentence encoder's directory, and what torch says of its vectors."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel

from tests.bundle_factory import WORDS

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "query", "passage"]
VOCABULARY = {word: index for index, word in enumerate([*SPECIAL, *WORDS, *(f"title{n}" for n in range(60))])}
SETTINGS = {
    "pooling": "mean", "normalise": True, "query_prefix": "query ", "passage_prefix": "passage ", "max_length": 16,
}
DIMENSION = 12


class Encoder(torch.nn.Module):
    """What is exported: the last states alone."""

    def __init__(self, bert: BertModel) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids, attention_mask, token_type_ids):
        return self.bert(input_ids, attention_mask, token_type_ids).last_hidden_state


def make_bert() -> BertModel:
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=DIMENSION, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=32, initializer_range=0.5,
    )
    return BertModel(config, add_pooling_layer=False).eval()


def make_tokenizer() -> Tokenizer:
    """Words, framed as BERT's are."""
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [(token, VOCABULARY[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return tokenizer


def make_encoder(directory: Path) -> Path:
    """Write a directory for `memory index --encoder`."""
    directory.mkdir(parents=True)
    names = ("input_ids", "attention_mask", "token_type_ids")
    example = tuple(torch.ones(2, 5, dtype=torch.int64) for _ in names)
    lengths = {0: "batch", 1: "tokens"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older exporter is deprecated, and ten times as fast
        torch.onnx.export(
            Encoder(make_bert()).eval(), example, str(directory / "model.onnx"), input_names=list(names), dynamo=False,
            output_names=["last_hidden_state"], dynamic_axes=dict.fromkeys([*names, "last_hidden_state"], lengths),
        )
    make_tokenizer().save(str(directory / "tokenizer.json"))
    (directory / "encoder.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
    return directory


def give_sentence_embeddings(directory: Path) -> None:
    """Let the encoder's graph pool by itself: its first token's states, as sentence_embedding."""
    model = onnx.load(directory / "model.onnx")
    first = helper.make_tensor("first_token", onnx.TensorProto.INT64, [], [0])
    model.graph.initializer.append(first)
    pool = helper.make_node("Gather", ["last_hidden_state", "first_token"], ["sentence_embedding"], axis=1)
    model.graph.node.append(pool)
    output = helper.make_tensor_value_info("sentence_embedding", onnx.TensorProto.FLOAT, ["batch", DIMENSION])
    model.graph.output.append(output)
    onnx.save(model, directory / "model.onnx")


def torch_embedding(text: str, *, pooling: str = "mean", normalise: bool = True, max_length: int = 16) -> np.ndarray:
    """(dimension,) of one text, alone."""
    tokenizer = make_tokenizer()
    tokenizer.enable_truncation(max_length)
    ids = torch.tensor([tokenizer.encode(text).ids])
    with torch.no_grad():
        states = make_bert()(ids).last_hidden_state[0]
    vector = states[0] if pooling == "cls" else states.mean(dim=0)
    return (vector / vector.norm() if normalise else vector).numpy()
