"""Nothing that we import reports home: importing the runtime says so to each library that would, and does it first.

ONNX Runtime reads its variable as it is imported: it would keep an identifier and a database below ~/.cache and send
events over the network (from 1.31 on), and `disable_telemetry_events()` comes too late. A variable that is set already
is left as it is: who wants to report may.
"""

from __future__ import annotations

import os

__all__ = ["SWITCHES"]

SWITCHES = {
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
"""The switch of each library that reports, and the position that keeps it from doing so."""

for _name, _position in SWITCHES.items():
    os.environ.setdefault(_name, _position)
