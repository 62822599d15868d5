"""What of a model is quantised and how: a policy, as `configs/precision/*.yaml` holds it."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

__all__ = ["DEFAULT_POLICY", "Equalize", "Policy"]

DEFAULT_POLICY = "int8"


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from None
    return pattern


Pattern = Annotated[str, Field(min_length=1), AfterValidator(_compiles)]
# YAML has lists where a frozen model has tuples: only the tuple itself is not strict.
Patterns = Annotated[tuple[Pattern, ...], Field(strict=False)]
Strength = Annotated[float, Field(ge=0, le=1)] | None


class Equalize(BaseModel):
    """How far magnitude moves from activations into weights, 0 to 1, by where; None leaves a place alone."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    feed_forward: Strength
    values: Strength
    norms: Strength
    heads: Strength


class Policy(BaseModel):
    """Regular expressions are searched in `graph/node`, such as `live_stage_a/live_encoder.block.0...wo/MatMul`.

    `keep`: products that stay in float. `token_scales`: products that read each token at a scale of its own.
    `where_it_pays`: products that are INT8 only if that is faster on the GPU in question (see
    `glimmer_export.calibration.worth`).
    `lazy_layer`: whether the layer that lazy stage A computes for one token is INT8. `embeddings`: whether tables are.
    `half_tables`: the tables whose codes are FP16 instead, at a scale a row as INT8's.
    `eight_bit`: of weights of 4 bits (`--weight-only int4`), the products that have 8 instead.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    description: str = Field(min_length=1)
    equalize: Equalize
    token_scales: Patterns
    keep: Patterns
    where_it_pays: Patterns = ()
    lazy_layer: bool
    embeddings: bool
    half_tables: Patterns = ()
    eight_bit: Patterns = ()
