"""A FiD as facebookresearch's code saves it, and that code's own way from question and passages to an answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import PreTrainedTokenizerFast, T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from tests.t5_factory import make_t5

__all__ = [
    "TABLE", "WORDS", "fid_answer", "fid_texts", "give_table", "hugging_face_tokenizer", "make_reader", "save_fid",
    "word_tokenizer",
]  # fmt: skip

TABLE = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
SPECIAL = ["<pad>", "</s>", "<unk>"]
WORDS = [f"w{index}" for index in range(60)]
PREFIXES = ["question:", "title:", "context:"]


class CheckpointWrapper(nn.Module):
    """Stands around each block of the encoder."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


class EncoderWrapper(nn.Module):
    """Stands around the encoder."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        encoder.block = nn.ModuleList([CheckpointWrapper(block) for block in encoder.block])


def word_tokenizer() -> Tokenizer:
    """Words and FiD's three prefixes, `</s>` at the end."""
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *PREFIXES, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


def hugging_face_tokenizer(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>", unk_token="<unk>", padding_side="right"
    )


def make_reader(variant: str = "v1.0", *, seed: int = 0, **changes: object) -> T5ForConditionalGeneration:
    """A T5 whose answers depend on what it reads."""
    model = make_t5(variant, seed=seed, **changes)
    for name, parameter in model.named_parameters():
        if "EncDecAttention" in name or ".q." in name:
            parameter.mul_(2)
    return model


def give_table(model: T5ForConditionalGeneration, *, scale: float = 4.0) -> T5ForConditionalGeneration:
    """Let the decoder's cross-attention have a table of relative positions, as transformers had it before 4.0.

    Today's T5 still computes it as it computes the self-attention's, and hands it to the later layers.
    """
    attention = model.decoder.block[0].layer[1].EncDecAttention
    attention.has_relative_attention_bias = True
    shape = (model.config.relative_attention_num_buckets, model.config.num_heads)
    table = scale * torch.randn(shape, generator=torch.Generator().manual_seed(1))
    attention.relative_attention_bias = nn.Embedding.from_pretrained(table)
    # With a cache, transformers 5 counts the token that is decoded as one that was decoded before.
    model.config.use_cache = model.decoder.config.use_cache = model.generation_config.use_cache = False
    return model


def save_fid(model: T5ForConditionalGeneration, directory: Path) -> Path:
    """Write `config.json` and `pytorch_model.bin`; the model itself is taken apart for it."""
    directory.mkdir()
    model.config.save_pretrained(directory)
    model.encoder = EncoderWrapper(model.encoder)
    torch.save(model.state_dict(), directory / "pytorch_model.bin")
    return directory


def fid_texts(question: str, passages: Sequence[tuple[str, str]]) -> list[str]:
    """What FiD encodes: one text for each passage (title, text)."""
    return [f"question: {question} title: {title} context: {text}" for title, text in passages]


def fid_answer(
    model: T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str],
    *, text_maxlength: int, max_new_tokens: int,
) -> list[int]:
    """Answer tokens, without start token and EOS: texts padded to one length, encoded one by one, read as one.

    The tokenizer of transformers 3.0.2, which FiD pins, adds no EOS.
    """
    batch = tokenizer(
        list(texts), max_length=text_maxlength, padding="max_length", truncation=True, return_tensors="pt",
        add_special_tokens=False,
    )
    states = [
        model.encoder(input_ids=ids[None], attention_mask=mask[None]).last_hidden_state
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    generated = model.generate(
        encoder_outputs=BaseModelOutput(torch.cat(states, dim=1)),
        attention_mask=batch["attention_mask"].reshape(1, -1),
        max_new_tokens=max_new_tokens, do_sample=False, num_beams=1,
    )
    tokens: list[int] = generated[0, 1:].tolist()
    return tokens[: tokens.index(1)] if 1 in tokens else tokens
