"""One line of JSON for every request and every remark, without questions unless they are asked for."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from typing import Any, TextIO

from starlette.types import Scope

__all__ = ["ACCESS", "Lines", "log_refused", "log_request", "log_to"]

ACCESS = logging.getLogger("glimmer_export.runtime.serving.access")
FIELDS = "glimmer_fields"
LOGGERS = ("glimmer_export", "uvicorn.error", "asyncio")


class Lines(logging.Formatter):
    """A record as JSON, its traceback too: a line is a record, whatever stands in it."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        found: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            found["traceback"] = self.formatException(record.exc_info)
        return json.dumps(found, ensure_ascii=True, default=str)


def log_request(scope: Scope, status: int, seconds: float) -> None:
    """A request has ended; status 499: its client left before."""
    if not ACCESS.isEnabledFor(logging.INFO):
        return
    state = scope.get("state", {})
    fields = {
        "request_id": state.get("request_id"), "method": scope["method"], "path": scope["path"], "status": status,
        "milliseconds": round(1e3 * seconds, 2),
    }
    fields |= {name: state[name] for name in ("num_questions", "questions", "generation") if name in state}
    ACCESS.info("request", extra={FIELDS: fields})


def log_refused(request_id: str, status: int) -> None:
    """Something was refused before its line and headers could be read."""
    ACCESS.info("refused", extra={FIELDS: {"request_id": request_id, "status": status}})


def log_to(stream: TextIO) -> None:
    """Write there what is logged here and by uvicorn; requests too, unless only errors are wanted."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Lines())
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers[:], logger.propagate = [handler], False
    ours = logging.getLogger("glimmer_export")
    if ours.getEffectiveLevel() <= logging.WARNING:
        ACCESS.setLevel(logging.INFO)
        logging.getLogger("glimmer_export.runtime.serving").setLevel(logging.INFO)
