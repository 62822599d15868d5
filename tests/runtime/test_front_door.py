"""What `runtime` offers is what is exported and what docs/python.md names, no less and no more."""

from __future__ import annotations

import re
from pathlib import Path

from glimmer_export import runtime
from glimmer_export.runtime.contract import errors

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "python.md"


def test_every_error_is_exported():
    assert set(errors.__all__) <= set(runtime.__all__)
    assert all(issubclass(getattr(runtime, name), runtime.GlimmerError) for name in errors.__all__)


def test_all_is_in_order_and_there():
    assert len(set(runtime.__all__)) == len(runtime.__all__)
    assert all(hasattr(runtime, name) for name in runtime.__all__)


def test_the_document_names_all_of_it():
    text = DOCUMENT.read_text(encoding="utf-8")
    code = " ".join(re.findall(r"`([^`\n]+)`", text))
    missing = [name for name in runtime.__all__ if not re.search(rf"\b{name}\b", code)]
    assert not missing
    named = set(re.findall(r"`([A-Z][A-Za-z]*(?:Error|Warning))\b", text))
    assert named <= set(runtime.__all__) | {"IndexError"}


def test_the_documents_code_compiles():
    blocks = re.findall(r"```python\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert blocks
    for block in blocks:
        compile(block, str(DOCUMENT), "exec")
