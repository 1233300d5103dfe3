"""Acting as one of the database's roles, in a process whose settings name the owner.

The factories and the tests themselves are the owner, who sees everything; what they call, or ask
over HTTP, can act in the role that it has in a real platform.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from sqlalchemy import Engine, make_url
from sqlalchemy.orm import Session, sessionmaker
from starlette.types import ASGIApp, Receive, Scope, Send

from shared import db
from shared.config import settings
from shared.roles import Role

_role: ContextVar[Role | None] = ContextVar("role", default=None)


@contextmanager
def acting_as(role: Role | None) -> Iterator[None]:
    """Let every transaction of the block, and of threads that it starts tasks in, be `role`'s."""
    token = _role.set(role)
    try:
        yield
    finally:
        _role.reset(token)


class App:
    """An application all of whose requests are served in one role."""

    def __init__(self, app: Any, role: Role | None) -> None:
        self._app: ASGIApp = app
        self.state = app.state
        self.role = role

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with acting_as(self.role):
            await self._app(scope, receive, send)


def url_of(role: Role) -> str:
    """Where a role finds the database."""
    url = make_url(settings().database_url.get_secret_value())
    password = settings().role_passwords[role].get_secret_value()
    return url.set(username=role, password=password).render_as_string(hide_password=False)


@functools.cache
def engine_of(role: Role) -> Engine:
    """The engine of a role."""
    return db.engine_for(url_of(role))


@functools.cache
def _sessions_of(role: Role | None) -> sessionmaker[Session]:
    engine = db.engine() if role is None else engine_of(role)
    return sessionmaker(engine, expire_on_commit=False)


def install() -> None:
    """Let `transaction` look who is acting."""
    db._sessions = lambda: _sessions_of(_role.get())  # type: ignore[assignment] # noqa: SLF001
