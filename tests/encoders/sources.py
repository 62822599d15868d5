"""Tiny encoders of random weights as sentence-transformers saves them: BERT as MiniLM, E5 and BGE, T5's as GTR."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
)

from tests.bundle_factory import WORDS

SPECIAL = ["<pad>", "</s>", "<unk>", "query:", "passage:"]
VOCABULARY = {word: index for index, word in enumerate([*SPECIAL, *WORDS])}
WIDTH, PROJECTED = 16, 6
POOLING = {
    "word_embedding_dimension": WIDTH, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True,
    "pooling_mode_max_tokens": False, "pooling_mode_mean_sqrt_len_tokens": False,
}
TYPES = "sentence_transformers.models."


def write_json(path: Path, data: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data), encoding="utf-8")


def write_tokenizer(directory: Path, *, lower: bool = False) -> None:
    """Words, ended by </s>."""
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    if lower:
        tokenizer.normalizer = normalizers.Lowercase()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=48,
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(directory)


def write_modules(directory: Path, *kinds: str, pooling: dict[str, Any] | None = None) -> None:
    entries = [
        {"idx": index, "name": str(index), "path": "" if index == 0 else f"{index}_{kind}", "type": f"{TYPES}{kind}"}
        for index, kind in enumerate(kinds)
    ]
    write_json(directory / "modules.json", entries)
    write_json(directory / "1_Pooling" / "config.json", pooling or POOLING)
    write_json(directory / "sentence_bert_config.json", {"max_seq_length": 24, "do_lower_case": False})


def write_bert(
    directory: Path, *, pooling: dict[str, Any] | None = None, prompts: dict[str, str] | None = None
) -> Path:
    """MiniLM's layout; with prompts, E5's."""
    torch.manual_seed(1)
    BertModel(BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=48, initializer_range=0.5, pad_token_id=0,
    )).save_pretrained(directory)  # fmt: skip
    write_tokenizer(directory)
    write_modules(directory, "Transformer", "Pooling", "Normalize", pooling=pooling)
    if prompts is not None:
        write_json(directory / "config_sentence_transformers.json", {"prompts": prompts, "default_prompt_name": None})
    return directory


def write_gtr(directory: Path, *, whole: bool = False) -> Path:
    """GTR's layout: T5's encoder (or all of T5), mean pooling, a projection without bias, length 1."""
    from safetensors.torch import save_file

    torch.manual_seed(2)
    config = T5Config(
        vocab_size=len(VOCABULARY), d_model=WIDTH, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
        decoder_start_token_id=0,
    )
    (T5ForConditionalGeneration if whole else T5EncoderModel)(config).save_pretrained(directory)
    write_tokenizer(directory)
    write_modules(directory, "Transformer", "Pooling", "Dense", "Normalize")
    write_json(directory / "2_Dense" / "config.json", {
        "in_features": WIDTH, "out_features": PROJECTED, "bias": False,
        "activation_function": "torch.nn.modules.linear.Identity",
    })  # fmt: skip
    save_file({"linear.weight": torch.randn(PROJECTED, WIDTH)}, directory / "2_Dense" / "model.safetensors")
    return directory
