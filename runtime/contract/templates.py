"""How question and passage become text: templates that hold plain fields, and nothing more that `format` could do."""

from __future__ import annotations

import string

__all__ = ["TEMPLATES", "template_fault"]

TEMPLATES = {
    "question_template": ("question",),
    "passage_template": ("text", "title"),
    "input_template": ("question", "text", "title"),
}
"""The fields that each of a model's templates may hold; a model may have no `input_template`."""


def template_fault(name: str, template: str | None) -> str | None:
    """What is wrong with the template `name` of a model; None where it holds some of its fields and nothing else."""
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
    return None
