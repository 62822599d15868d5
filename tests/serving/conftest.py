"""A server of a tiny bundle in this process, asked as clients ask it.

The bundle and its store are golden files: nothing is exported for these tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from starlette.testclient import TestClient

from glimmer_export.runtime import BundleError, Session
from glimmer_export.runtime.serving import Service, create_app, settings_from
from tests.golden.whole import whole

GOLDEN = whole("schema8")
BUNDLE, STORE = GOLDEN / "bundle", GOLDEN / "store-int8"


@pytest.fixture(scope="session")
def session() -> Iterator[Session]:
    """What is served, for a test to ask itself."""
    with Session.open(BUNDLE, STORE, threads=1) as opened:
        yield opened


@pytest.fixture(scope="session")
def client(session: Session) -> Iterator[TestClient]:
    """A client of a server that is ready; for tests that only ask."""
    with serving(session) as (asked, _):
        yield asked


@contextmanager
def serving(
    session: Session, *, ready: bool = True, not_ready: BundleError | None = None, **settings: object
) -> Iterator[tuple[TestClient, Service]]:
    """A client of a server with these settings, and what answers there, warmed up."""
    found = settings_from(settings, {"bundle": BUNDLE, "store": STORE})
    service = Service.of(session, found, not_ready=not_ready)
    with TestClient(create_app(service), base_url="http://localhost") as client:
        assert not ready or service.worker.is_warm.wait(60)
        yield client, service
