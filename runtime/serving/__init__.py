"""Answers over HTTP: one queue, one thread that asks the session, and what stands around them.

```python
from glimmer_export.runtime.serving import serve, settings_from

serve(settings_from({"bundle": "BUNDLE", "store": "STORE"}))
```

Needs the extra `serve`; nothing else of the runtime does. `create_app` has the application alone, for another server
of ASGI.
"""

from __future__ import annotations

from glimmer_export.runtime.serving.app import create_app
from glimmer_export.runtime.serving.log import log_to
from glimmer_export.runtime.serving.server import serve
from glimmer_export.runtime.serving.service import Service
from glimmer_export.runtime.serving.settings import Settings, settings_from

__all__ = ["Service", "Settings", "create_app", "log_to", "serve", "settings_from"]
