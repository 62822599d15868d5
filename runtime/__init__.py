"""Device side: answer questions with a bundle and a memory store, without torch.

```python
from runtime import Session

with Session.open("BUNDLE", store="STORE") as session:
    print(session.answer("Who painted the ceiling?").answer)
```
"""

from runtime import telemetry  # noqa: F401 - first of all: ONNX Runtime reads what it sets as it is imported
from runtime.answer import Answer, PassageTruncatedWarning, RankedPassage
from runtime.backends.choice import BACKEND_NAMES, BackendChoice
from runtime.candidates import PassageId
from runtime.contract import GlimmerError
from runtime.session import Session
from runtime.store import Passage

__all__ = [
    "BACKEND_NAMES",
    "Answer",
    "BackendChoice",
    "GlimmerError",
    "Passage",
    "PassageId",
    "PassageTruncatedWarning",
    "RankedPassage",
    "Session",
]
