"""Server-sent events: what is told while it comes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from glimmer_export.runtime.contract import GlimmerError
from glimmer_export.runtime.serving.errors import ServingError, of_glimmer, shutting_down
from glimmer_export.runtime.serving.exchange import ClientLeftError, Told

__all__ = ["EventStream", "begun", "event"]

logger = logging.getLogger(__name__)


def event(content: BaseModel | str, name: str | None = None) -> bytes:
    """One event; JSON has no line break in it."""
    data = content if isinstance(content, str) else content.model_dump_json(exclude_none=name is None)
    return (f"event: {name}\n" if name else "").encode() + f"data: {data}\n\n".encode()


async def begun(told: AsyncIterator[Told]) -> AsyncIterator[Told]:
    """The same, once the first is there: what is raised before it can still be a status."""
    first = await anext(told)

    async def all_of_it() -> AsyncIterator[Told]:
        yield first
        async for item in told:
            yield item

    return all_of_it()


class EventStream(Response):
    """Sends events as they come. What is raised meanwhile is one too: the status has gone out already."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], request: Request, places: Sequence[str], name: str | None) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._events, self._request, self._places, self._name = events, request, places, name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # as starlette calls it
        """Send all of it; raises nothing, for a stream that ends early is for its client to see."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async for content in self._events:
                await send({"type": "http.response.body", "body": content, "more_body": True})
        except ClientLeftError:
            return
        except (GlimmerError, ServingError) as error:
            await self._fail(of_glimmer(error, *self._places), send)
        except asyncio.CancelledError:  # the server ends
            await self._fail(shutting_down(), send)
        except Exception as error:
            logger.exception("request %s failed", self._request.state.request_id)
            await self._fail(of_glimmer(error), send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _fail(self, error: ServingError, send: Send) -> None:
        content = event(error.body(self._request.state.request_id), self._name)
        await send({"type": "http.response.body", "body": content, "more_body": True})
