"""Device side: answer questions with a bundle and a memory store, without torch.

```python
from glimmer_export.runtime import Session

with Session.open("BUNDLE", store="STORE") as session:
    print(session.answer("Who painted the ceiling?").answer)
```
"""

from glimmer_export.runtime import telemetry  # noqa: F401 - first of all: ONNX Runtime reads what it sets as it is imported
from glimmer_export.runtime.answer import Answer, PassageTruncatedWarning, RankedPassage
from glimmer_export.runtime.backends.choice import BACKEND_NAMES, BackendChoice
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.candidates import PassageId
from glimmer_export.runtime.contract.errors import (
    BackendError,
    BundleError,
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
    TokenizerError,
)
from glimmer_export.runtime.session import Session
from glimmer_export.runtime.store import Hit, MemoryStore, Passage

__all__ = [
    "BACKEND_NAMES",
    "Answer",
    "BackendChoice",
    "BackendError",
    "Bundle",
    "BundleError",
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
    "TokenizerError",
]
