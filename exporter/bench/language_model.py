"""A small language model that reads the same passages as text: the shape of Qwen2.5-0.5B, random weights, CTranslate2.

Passages and question are one prompt. A bound below any cache of passages' keys and values (RAGCache, TurboRAG and
their like) is the same model with the states of the passages kept from before: no cache can do less than what is left,
which is to read the question and to decode.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glimmer_export.exporter.bench.inputs import BenchQuestion, word_tokenizer
from glimmer_export.exporter.bench.measure import Answered, ContenderSpec
from glimmer_export.exporter.bench.roster import STORED_STATES
from glimmer_export.exporter.files.publish import publish_directory

__all__ = ["LanguageModel", "LanguageModelShape", "state_bytes_per_token", "write_language_model"]

FLOAT16 = 2
SHAPE = "shape.json"
EOS = 1


@dataclass(frozen=True)
class LanguageModelShape:
    """Widths and depths; the defaults are those of Qwen/Qwen2.5-0.5B, 494 million parameters."""

    vocab_size: int = 151_936
    d_model: int = 896
    d_ff: int = 4864
    num_layers: int = 24
    num_heads: int = 14
    num_key_value_heads: int = 2

    @property
    def state_bytes_per_token(self) -> int:
        """Keys and values of one token in all layers, in FP16."""
        return 2 * self.num_layers * self.num_key_value_heads * (self.d_model // self.num_heads) * FLOAT16


def write_language_model(directory: Path, shape: LanguageModelShape | None = None, *, seed: int = 0) -> None:
    """Write the model as CTranslate2 takes it, in INT8, into a new directory; a word is a token, as for ours.

    Raises OutputError if the directory exists or cannot be written.
    """
    import torch
    from ctranslate2.converters import TransformersConverter
    from transformers import Qwen2Config, Qwen2ForCausalLM
    from transformers.utils import logging as transformers_logging

    shape = shape or LanguageModelShape()
    config = Qwen2Config(
        vocab_size=shape.vocab_size, hidden_size=shape.d_model, intermediate_size=shape.d_ff,
        num_hidden_layers=shape.num_layers, num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_key_value_heads, tie_word_embeddings=True, bos_token_id=None, eos_token_id=EOS,
        initializer_range=shape.d_model**-0.5,  # its own 0.02 makes a model that repeats what it reads
    )  # fmt: skip
    bar_is_on = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with publish_directory(directory) as work, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                model = Qwen2ForCausalLM(config).eval()
            float_model = work / "float"
            model.save_pretrained(float_model)
            del model
            (float_model / "tokenizer.json").write_bytes(word_tokenizer(shape.vocab_size))
            special = {"unk_token": "t0", "pad_token": "t0", "eos_token": f"t{EOS}"}
            names = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
            (float_model / "tokenizer_config.json").write_text(json.dumps(names), encoding="utf-8")
            TransformersConverter(str(float_model)).convert(str(work / "int8"), quantization="int8")
            for path in [*float_model.iterdir()]:
                path.unlink()
            float_model.rmdir()
            for path in [*(work / "int8").iterdir()]:
                path.rename(work / path.name)
            (work / "int8").rmdir()
            (work / SHAPE).write_text(json.dumps({"state_bytes_per_token": shape.state_bytes_per_token}))
    finally:
        logging.disable(level)
        if bar_is_on:
            transformers_logging.enable_progress_bar()


def state_bytes_per_token(directory: Path) -> int:
    """Of a written model: keys and values of one token, as `LanguageModelShape` counts them."""
    return int(json.loads((directory / SHAPE).read_text(encoding="utf-8"))["state_bytes_per_token"])


class LanguageModel:
    """Reads passages and question as one prompt, greedily; with `llm-kv` the passages' states are there already."""

    def __init__(self, spec: ContenderSpec, generator: Any) -> None:
        self._spec, self._generator = spec, generator
        self._keeps_states = spec.form == STORED_STATES

    def prefill(self, batches: Sequence[Sequence[BenchQuestion]]) -> None:
        """Compute and keep the states of every question's passages, before anything is timed."""
        for batch in batches if self._keeps_states else ():
            self.answer(batch)

    def answer(self, batch: Sequence[BenchQuestion]) -> Answered:
        """Answer a batch; kept states are of one question's passages, so that a batch of more goes one by one."""
        if not self._keeps_states:
            return Answered(self._generate([self._passages(item) + self._question(item) for item in batch]))
        return Answered([
            tokens
            for item in batch
            for tokens in self._generate([self._question(item)], static_prompt=self._passages(item))
        ])

    def _generate(self, prompts: list[list[str]], **options: object) -> list[list[int]]:
        count = self._spec.answer_tokens
        found = self._generator.generate_batch(
            prompts, max_length=count, min_length=count, sampling_topk=1, include_prompt_in_result=False,
            cache_static_prompt=True, **options,
        )
        return [result.sequences_ids[0] for result in found]

    def _passages(self, question: BenchQuestion) -> list[str]:
        return _words([token for ids in question.passage_ids[: self._spec.num_passages] for token in ids[:-1]])

    def _question(self, question: BenchQuestion) -> list[str]:
        return _words(question.token_ids[:-1])


def _words(ids: Sequence[int]) -> list[str]:
    return [f"t{token}" for token in ids]
