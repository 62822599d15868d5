"""The checkpoint's `config.json`: one frozen model, parsed once, where an unknown key is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from typing_extensions import Self

from glimmer_export.exporter.config.read import validation_message
from glimmer_export.runtime.contract import ARCHITECTURES, CheckpointError, ModelShape, is_there
from glimmer_export.runtime.contract.architecture import ScorePooling
from glimmer_export.runtime.contract.kinds import CHECKPOINT, error_of_kind
from glimmer_export.runtime.contract.manifest import MAX_ANSWER, MAX_DEPTH, MAX_LENGTH, MAX_PASSAGES, MAX_WIDTH
from glimmer_export.runtime.contract.records import read_json_value
from glimmer_export.runtime.contract.templates import TEMPLATES, is_early_fid, template_fault

__all__ = ["CheckpointConfig", "parse_config", "read_config"]

Count = Field(ge=0, le=MAX_DEPTH)
Size = Field(ge=1, le=MAX_WIDTH)


class CheckpointConfig(BaseModel):
    """Shape and options of a LUMEN or GLIMMER model (GLIMMER paper, section 3), in T5's field names if T5 has one.

    Layer counts are those of the parts; the papers' proportions are resolved to layers when a checkpoint is made.
    `num_selected` is None if nothing is selected, `num_shortlisted` if stage A ranks all k: else it ranks so many, the
    best by a score head behind its first layer. Lengths are in tokens, EOS included. FiD may join question and
    passage in one text by `input_template`, passage_length tokens at most, instead of giving the question a block.
    EOS follows question and passage where `question_eos` and `passage_eos` say so; to what joins them the latter
    applies. `cross_attention_bias` is FiD's table of relative positions in the decoder's cross-attention. With
    `separate_reranker` stage A's layers are a stack of their own, and stage B's are the whole live encoder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())

    model_type: Literal["glimmer"] = "glimmer"
    architecture: Literal["glimmer", "lumen", "memory_fid", "fid"]

    vocab_size: int = Size
    d_model: int = Size
    d_kv: int = Size
    d_ff: int = Size
    num_heads: int = Size
    num_memory_layers: int = Count
    num_stage_a_layers: int = Count
    num_stage_b_layers: int = Count
    num_decoder_layers: int = Field(ge=1, le=MAX_DEPTH)
    feed_forward_proj: Literal["relu", "gated-gelu"] = "gated-gelu"
    tie_word_embeddings: bool = False
    relative_attention_num_buckets: int = Field(default=32, ge=4, le=4096, multiple_of=4)
    relative_attention_max_distance: int = Field(default=128, ge=2, le=1 << 20)
    layer_norm_epsilon: float = Field(default=1e-6, gt=0, lt=1)

    separate_question_encoder: bool = False
    separate_reranker: bool = False
    score_pooling: ScorePooling = "first"
    memory_final_norm: bool = False
    question_length: int = Field(default=48, ge=2, le=MAX_LENGTH)
    passage_length: int = Field(default=304, ge=2, le=MAX_LENGTH)
    question_template: str = "{question}"
    passage_template: str = "{title} {text}"
    question_layout: Literal["block", "joined"] = "block"
    input_template: str | None = None
    question_eos: bool = True
    passage_eos: bool = True
    cross_attention_bias: bool = False
    num_retrieved: int = Field(default=25, ge=1, le=MAX_PASSAGES)
    num_shortlisted: int | None = Field(default=None, ge=1)
    num_selected: int | None = Field(default=None, ge=1)
    max_new_tokens: int = Field(default=32, ge=1, le=MAX_ANSWER)

    pad_token_id: int = Field(default=0, ge=0)
    eos_token_id: int = Field(default=1, ge=0)
    decoder_start_token_id: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _parts_fit_architecture(self) -> Self:
        counts = {
            "num_memory_layers": self.num_memory_layers,
            "num_stage_a_layers": self.num_stage_a_layers,
            "num_stage_b_layers": self.num_stage_b_layers,
        }
        used = ARCHITECTURES[self.architecture].stacks
        for name, count in counts.items():
            stage = name.removeprefix("num_").removesuffix("_layers")
            if stage in used and count == 0:
                raise ValueError(f"{name} is 0, but {self.architecture} needs at least one layer in its {stage} stage")
            if stage not in used and count:
                raise ValueError(f"{name} is {count}, but {self.architecture} has no {stage} stage: set it to 0")
        return self

    @model_validator(mode="after")
    def _options_fit_architecture(self) -> Self:
        traits = ARCHITECTURES[self.architecture]
        if traits.selects:
            if self.num_selected is None:
                raise ValueError(f"num_selected is missing: {self.architecture} reads the best num_selected passages")
            if self.num_selected > self.num_retrieved:
                raise ValueError(f"num_selected {self.num_selected} is more than num_retrieved {self.num_retrieved}")
        elif self.num_selected is not None:
            raise ValueError(f"num_selected is {self.num_selected}, but {self.architecture} selects nothing: use null")
        if self.separate_question_encoder and not traits.encodes_question:
            raise ValueError(f"separate_question_encoder is set, but {self.architecture} has no question encoder")
        if self.separate_reranker and not traits.selects:
            raise ValueError(f"separate_reranker is set, but {self.architecture} ranks nothing")
        if self.memory_final_norm and not traits.has_memory:
            raise ValueError(f"memory_final_norm is set, but {self.architecture} has no memory")
        if self.question_layout == "joined" and self.architecture != "fid":
            raise ValueError(f"question_layout is joined, but {self.architecture} encodes passages without questions")
        if (self.question_layout == "joined") != (self.input_template is not None):
            raise ValueError("question_layout joined and input_template go together: set both, or neither")
        if self.cross_attention_bias and self.question_layout != "joined":
            raise ValueError("cross_attention_bias is set, but it is FiD's, which has question_layout joined")
        for name in ("pad_token_id", "eos_token_id", "decoder_start_token_id"):
            if getattr(self, name) >= self.vocab_size:
                raise ValueError(f"{name} {getattr(self, name)} is outside the vocabulary of {self.vocab_size}")
        # The decoder looks one way only, so half of its buckets are exact distances; the logarithm starts there.
        if self.relative_attention_max_distance <= self.relative_attention_num_buckets // 2:
            raise ValueError("relative_attention_max_distance must exceed relative_attention_num_buckets / 2")
        for name in TEMPLATES:
            if fault := template_fault(name, template := getattr(self, name)):
                raise ValueError(f"{name} {template!r} {fault}")
        return self

    @model_validator(mode="after")
    def _shortlist_fits(self) -> Self:
        if self.num_shortlisted is None:
            return self
        shortlisted = f"num_shortlisted is {self.num_shortlisted}"
        if self.num_stage_a_layers < 2:
            raise ValueError(f"{shortlisted}, but a shortlist takes a stage A of two layers: use null")
        if not (self.num_selected or 0) <= self.num_shortlisted <= self.num_retrieved:
            raise ValueError(f"{shortlisted}, but it lies between num_selected and num_retrieved")
        if self.score_pooling != "first":
            raise ValueError(f"{shortlisted}, but a shortlist reads the first token: set score_pooling to first")
        return self

    @property
    def num_live_layers(self) -> int:
        """Layers of the live encoder: stage A and stage B, or stage B alone beside a separate reranker."""
        return self.shape.num_live_layers

    @property
    def num_shared_layers(self) -> int:
        """The live encoder's layers that stage A runs; none of a separate reranker."""
        return self.shape.num_shared_layers

    @property
    def inner_dim(self) -> int:
        """Width of the attention heads together, `num_heads * d_kv`; need not equal d_model."""
        return self.num_heads * self.d_kv

    @property
    def shape(self) -> ModelShape:
        """What the runtime needs to know of the model: the part of this config that a bundle's manifest carries."""
        return ModelShape(**{name: getattr(self, name) for name in ModelShape.field_names()})


def read_config(directory: Path) -> CheckpointConfig:
    """Parse `directory/config.json`.

    Raises CheckpointError if it is missing, not JSON, or has a wrong, missing or unknown field.
    """
    path = directory / "config.json"
    if not is_there(path):
        absent = CheckpointError(
            f"checkpoint {directory}", expected="a file config.json", found="none",
            fix="name a directory written by `glimmer-export init`",
        )
        raise error_of_kind(absent, directory, CHECKPOINT)
    data = read_json_value(
        path, error=CheckpointError, subject=str(path), expected="a JSON object", fix="restore the file", strict=True
    )
    if not isinstance(data, dict) or data.get("model_type") != "glimmer":
        found = repr(data.get("model_type")) if isinstance(data, dict) else type(data).__name__
        other = CheckpointError(
            f"{path}", expected='"model_type": "glimmer"', found=found,
            fix="a Hugging Face T5 directory becomes a checkpoint with `glimmer-export init --from-t5`",
        )
        raise error_of_kind(other, directory, CHECKPOINT)
    return parse_config(data, subject=str(path))


def parse_config(data: dict[str, Any], *, subject: str) -> CheckpointConfig:
    """Validate a config given as a mapping.

    Raises CheckpointError that names each wrong field, or for a FiD that was converted by an earlier version.
    """
    if is_early_fid(data):
        raise CheckpointError(
            f"{subject}, passage_eos", expected="whether EOS follows what a FiD reads", found="no such field",
            fix="convert the FiD again with `glimmer-export convert --from fid` (earlier versions added EOS to its "
            "passages and left out its cross-attention's table), or set passage_eos in a config that you write",
        )
    try:
        return CheckpointConfig.model_validate(data)
    except ValidationError as error:
        raise CheckpointError(
            subject, expected="the fields of a glimmer checkpoint, each of its type", found=validation_message(error),
            fix="correct the named fields",
        ) from None
