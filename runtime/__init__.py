"""Device side: answer questions with a bundle and a memory store, without torch.

```python
from glimmer_export import Session

with Session.open("BUNDLE", store="STORE") as session:
    print(session.answer("Who painted the ceiling?").answer)
```


A name is imported when it is first asked for, so that `glimmer_export.runtime.contract` alone needs numpy and no more.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from glimmer_export.runtime import telemetry  # noqa: F401 - ONNX Runtime reads what it sets as it is imported

if TYPE_CHECKING:
    from glimmer_export.runtime.answer import Answer, PassageTruncatedWarning, RankedPassage
    from glimmer_export.runtime.backends.contract import BackendKind, BackendOptions
    from glimmer_export.runtime.backends.registry import BackendChoice, backend_names, register_backend
    from glimmer_export.runtime.bundle import Bundle
    from glimmer_export.runtime.candidates import PassageId
    from glimmer_export.runtime.contract.errors import (
        BackendError,
        BundleError,
        BusyError,
        CalibrationError,
        CheckpointError,
        ClosedError,
        CorpusError,
        DeviceLostError,
        DeviceMemoryError,
        EmbeddingsError,
        EngineError,
        ExportError,
        ForkedError,
        GlimmerError,
        MissingExtraError,
        NotFiniteError,
        OperatingSystemError,
        OptionError,
        OutputError,
        PassageError,
        PassageNumberError,
        QuestionError,
        QuestionFileError,
        StoreError,
        TakenIdError,
        TokenizerError,
        TrainingError,
    )
    from glimmer_export.runtime.session import Session
    from glimmer_export.runtime.store import Hit, MemoryStore, Passage

    BACKEND_NAMES: tuple[str, ...]

__all__ = [
    "BACKEND_NAMES",
    "Answer",
    "BackendChoice",
    "BackendError",
    "BackendKind",
    "BackendOptions",
    "Bundle",
    "BundleError",
    "BusyError",
    "CalibrationError",
    "CheckpointError",
    "ClosedError",
    "CorpusError",
    "DeviceLostError",
    "DeviceMemoryError",
    "EmbeddingsError",
    "EngineError",
    "ExportError",
    "ForkedError",
    "GlimmerError",
    "Hit",
    "MemoryStore",
    "MissingExtraError",
    "NotFiniteError",
    "OperatingSystemError",
    "OptionError",
    "OutputError",
    "Passage",
    "PassageError",
    "PassageId",
    "PassageNumberError",
    "PassageTruncatedWarning",
    "QuestionError",
    "QuestionFileError",
    "RankedPassage",
    "Session",
    "StoreError",
    "TakenIdError",
    "TokenizerError",
    "TrainingError",
    "backend_names",
    "register_backend",
]

HOMES = {
    "Answer": "answer",
    "BackendChoice": "backends.registry",
    "BackendKind": "backends.contract",
    "BackendOptions": "backends.contract",
    "Bundle": "bundle",
    "Hit": "store",
    "MemoryStore": "store",
    "Passage": "store",
    "PassageId": "candidates",
    "PassageTruncatedWarning": "answer",
    "RankedPassage": "answer",
    "Session": "session",
    "backend_names": "backends.registry",
    "register_backend": "backends.registry",
}
"""The modules of these names; all others are errors, of `contract.errors`."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "BACKEND_NAMES":  # as of now: others can be registered
        return __getattr__("backend_names")()
    value = getattr(import_module(f"{__name__}.{HOMES.get(name, 'contract.errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
