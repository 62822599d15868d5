"""How question and passage become text: templates that hold plain fields, and nothing more that `format` could do."""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

__all__ = ["FID_TEMPLATE", "TEMPLATES", "is_early_fid", "template_fault"]

TEMPLATES = {
    "question_template": ("question",),
    "passage_template": ("text", "title"),
    "input_template": ("question", "text", "title"),
}
"""The fields that each of a model's templates may hold; a model may have no `input_template`."""

MAX_TEMPLATE, MAX_FIELDS = 4096, 8

FID_TEMPLATE = "question: {question} title: {title} context: {text}"
"""How FiD joins them (Izacard and Grave 2021)."""


def is_early_fid(model: Mapping[str, Any]) -> bool:
    """Whether a model's fields are those of a FiD converted before there was `passage_eos`.

    EOS was added then, and the cross-attention's table left out: neither is what the weights were trained with.
    """
    return model.get("input_template") == FID_TEMPLATE and "passage_eos" not in model


def template_fault(name: str, template: str | None) -> str | None:
    """What is wrong with the template `name` of a model; None if it holds some of its fields and nothing else."""
    if template is None:
        return None
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        return f"is not a template: {error}"
    names = {field for _, field, _, _ in parts if field is not None}
    if any(spec or conversion for _, _, spec, conversion in parts) or not names <= {*TEMPLATES[name]} or not names:
        wanted = ", ".join("{" + field + "}" for field in TEMPLATES[name])
        return f"may hold only the plain fields {wanted}, and at least one of them"
    if len(template) > MAX_TEMPLATE or sum(field is not None for _, field, _, _ in parts) > MAX_FIELDS:
        return f"is longer than {MAX_TEMPLATE} characters, or has more than {MAX_FIELDS} fields"
    return None
