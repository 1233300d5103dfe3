"""Real Postgres, Valkey and SeaweedFS for every test in this folder, on free ports.

They are started when the folder is collected, before its test modules import anything that reads
the settings.
"""

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from deploy.embedded.services import Services
from shared.roles import Role
from tests import acting
from tests.factory import authorization
from tests.proxy import CutAfterCommit

_SHORT_TIMERS = {
    "OCTAVO_LEASE_SECONDS": "4",
    "OCTAVO_HEARTBEAT_SECONDS": "1",
    "OCTAVO_SWEEP_SECONDS": "0.5",
    "OCTAVO_RESEND_SECONDS": "3",
    "OCTAVO_ENGINES": "fake,paddle",
    "OCTAVO_MAX_UPLOAD_BYTES": str(20 * 1024**2),
    "OCTAVO_MAX_PAGES": "700",
}

_directory = Path(tempfile.mkdtemp(prefix="octavo-tests-"))
_services = Services(_directory)


def _clean_up() -> None:
    _services.stop()
    shutil.rmtree(_directory, ignore_errors=True)


_services.start()
atexit.register(_clean_up)
_passwords = {"OCTAVO_ROLE_PASSWORDS": json.dumps(_services.role_passwords)}
os.environ.update(_services.environment() | _passwords | _SHORT_TIMERS)


@pytest.fixture(scope="session")
def _schema() -> None:
    from deploy import roles
    from migrations import run

    run.upgrade()
    roles.let_in()
    acting.install()


@pytest.fixture(autouse=True)
def _empty_tables(_schema: None) -> None:
    """Each test begins with no rows."""
    from shared.db import transaction

    with transaction() as session:
        session.execute(text("TRUNCATE tenants, workers, tombstones, audit CASCADE"))


@pytest.fixture
def session() -> Iterator[Session]:
    """A transaction that lasts for the whole test."""
    from shared.db import transaction

    with transaction() as opened:
        yield opened


@pytest.fixture
def gateway() -> Iterator[TestClient]:
    """The gateway's application in its own role, as a tenant with every scope talks to it."""
    from api.app import create_app

    app = acting.App(create_app(), Role.GATEWAY)
    with TestClient(app, headers=authorization()) as client:
        yield client


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[CutAfterCommit]:
    """A way to the database that can be cut; `transaction` takes it."""
    from shared import db

    url = db.engine().url
    assert url.host is not None
    assert url.port is not None
    with CutAfterCommit(url.host, url.port) as cut:
        engine = create_engine(
            url.set(port=cut.port), pool_size=1, connect_args=db.CONNECT_ARGUMENTS
        )
        sessions = sessionmaker(engine, expire_on_commit=False)
        monkeypatch.setattr(db, "_sessions", lambda: sessions)
        yield cut
        engine.dispose()
