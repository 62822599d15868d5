"""From a trained GLIMMER, LUMEN or FiD checkpoint to answers on a device.

```python
from glimmer_export import Session

with Session.open("BUNDLE", store="STORE") as session:
    print(session.answer("Who painted the ceiling?").answer)
```

The names here are those of `glimmer_export.runtime`, which needs no torch, and `__version__`. The folders `runtime`,
`calibration` and `exporter` stand at the top of the source tree, and are linked here.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from glimmer_export import runtime

if TYPE_CHECKING:
    from glimmer_export.runtime import *  # noqa: F403 - the names that its __all__ has

    __version__: str

logging.getLogger(__name__).addHandler(logging.NullHandler())  # a program that sets logging up hears us, others do not

__all__ = ["__version__"]
__all__ += runtime.__all__


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("glimmer-export")
    if name in __all__:
        return getattr(runtime, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
