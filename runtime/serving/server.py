"""A server that runs: its socket, its session, and the end of it."""

from __future__ import annotations

import logging
import math
import socket
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path

import uvicorn

from glimmer_export.runtime.answer import PassageTruncatedWarning
from glimmer_export.runtime.contract import BundleError, OperatingSystemError, OptionError, read_limited
from glimmer_export.runtime.opening import check_witness
from glimmer_export.runtime.serving.app import create_app
from glimmer_export.runtime.serving.protocol import protocol_with_deadline
from glimmer_export.runtime.serving.service import Service
from glimmer_export.runtime.serving.settings import Settings
from glimmer_export.runtime.session import Session
from glimmer_export.runtime.writes import Writer

__all__ = ["Stop", "listening_socket", "parity_fault", "read_token", "serve"]

logger = logging.getLogger(__name__)

BACKLOG = 2048
KEEP_ALIVE_S = 30
MAX_TOKEN_BYTES = 4096
MIN_TOKEN_BYTES = 16
Stop = Callable[[], None]
"""Has a server finish what it is at, and end."""


class _Server(uvicorn.Server):
    """Signals are whoever's who started it; `began` is called when connections are taken."""

    def __init__(self, config: uvicorn.Config, began: Callable[[], None]) -> None:
        super().__init__(config)
        self._began = began

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._began()

    def stop(self) -> None:
        """Take no more connections, finish what is in flight, end; a second time, at once."""
        self.force_exit = self.should_exit
        self.should_exit = True


def serve(
    settings: Settings, *, began: Callable[[str], None] = lambda url: None,
    stopping: Callable[[Stop], AbstractContextManager[None]] = lambda stop: nullcontext(),
    open_writer: Callable[[], Writer] | None = None,
) -> None:
    """Open a session and serve it until it is stopped; what is in flight is then finished.

    `began` is told the URL when connections are taken, before the session is warm. `stopping` is given what stops the
    server, and its context is that of serving: whoever has a signal to hear hears it there. `open_writer` makes what
    writes passages, which the runtime alone does not, and is called if the settings have a token for it. Raises as
    `Session.open` and `Session.warm_up`, and what `open_writer` raises; OptionError for a token that is none, for one
    that is both that of writes and the other, and for writes without `open_writer`; OperatingSystemError for an address
    that is not to be had.
    """
    token = None if settings.token_file is None else read_token(settings.token_file)
    write_token = _write_token(settings, token, can_write=open_writer is not None)
    with closing(listening_socket(settings.host, settings.port)) as listening:
        warnings.filterwarnings("ignore", category=PassageTruncatedWarning)  # each is marked in its answer
        with Session.open(
            settings.bundle, settings.store, threads=settings.threads, verify=settings.verify,
            retrieval=settings.retrieval, backend=settings.backend, passage_cache_bytes=settings.passage_cache_bytes,
            draft_tokens=settings.draft_tokens,
            compute_precision=settings.compute_precision, compile_cache=settings.compile_cache,
        ) as session:
            writer = None if write_token is None or open_writer is None else open_writer()
            service = Service.of(
                session, settings, not_ready=parity_fault(session, settings.require_parity), writer=writer
            )
            protocol = protocol_with_deadline(settings.receive_timeout_s, service.refused)
            config = uvicorn.Config(
                create_app(service, token, write_token), http=protocol, ws="none",
                loop="asyncio", lifespan="on", log_config=None, access_log=False, server_header=False,
                proxy_headers=False, timeout_keep_alive=KEEP_ALIVE_S, backlog=BACKLOG,
                timeout_graceful_shutdown=math.ceil(settings.timeout_s + settings.receive_timeout_s),
            )
            server = _Server(config, lambda: began(_url(listening)))
            service.worker.on_failure = server.stop
            with stopping(server.stop):
                server.run([listening])
            if service.worker.failure is not None:
                raise service.worker.failure


def _write_token(settings: Settings, token: bytes | None, *, can_write: bool) -> bytes | None:
    if settings.write_token_file is None:
        return None
    if not can_write:
        raise OptionError(
            "write_token_file", expected="a server that can write, as `glimmer-export serve` is",
            found="the runtime alone", fix="start it by that command, or give `serve` an open_writer",
        )
    found = read_token(settings.write_token_file)
    if found == token:
        raise OptionError(
            f"token file {settings.write_token_file}", expected="a token of its own for writes",
            found="that of all other requests", fix="write other random bytes into it",
        )
    return found


def read_token(path: Path) -> bytes:
    """What a client must show: the file's one line. Raises OptionError if it is no text, or too short for a secret."""
    fix = "write 32 random bytes in base64 or hex into it"
    content = read_limited(
        path, limit_bytes=MAX_TOKEN_BYTES, error=OptionError, subject=f"token file {path}", fix=fix,
        expected="a line",
    ).strip()
    if len(content) < MIN_TOKEN_BYTES or not all(0x21 <= byte <= 0x7E for byte in content):
        raise OptionError(
            f"token file {path}", expected=f"one line of {MIN_TOKEN_BYTES} or more printable characters",
            found=f"{len(content)} bytes" if len(content) < MIN_TOKEN_BYTES else "spaces, or what is no ASCII", fix=fix,
        )
    return content


def parity_fault(session: Session, required: str | None) -> BundleError | None:
    """Why the bundle does not pass for what runs it, None if it does or need not."""
    if required is None:
        return None
    codec = None if session.codec is None else session.codec.layout.name
    try:
        for backend, precision in session.computes.items():
            check_witness(
                session.bundle, backend, precision, codec=codec, required="device" if required == "device" else True
            )
    except BundleError as error:
        logger.error("not ready: %s", error)  # noqa: TRY400  # its message is all of it
        return error
    return None


def listening_socket(host: str, port: int) -> socket.socket:
    """One that listens; raises OperatingSystemError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.create_server(address, family=family, backlog=BACKLOG)
    except OSError as error:
        raise OperatingSystemError(
            f"address {host}:{port}", expected="one to listen on", found=error.strerror or str(error),
            fix="choose another with --host and --port",
        ) from None
    # What it accepts has this too. asyncio sets it only on sockets made for TCP by name; without it an answer's last
    # part waits 40 ms for the client's delayed acknowledgement of the first.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
