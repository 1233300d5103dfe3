"""Letting the roles of the processes into the database: they are made without a login."""

from __future__ import annotations

from psycopg2.extensions import encrypt_password
from sqlalchemy import text

from shared.advisory import AdvisoryLock
from shared.config import settings
from shared.db import transaction
from shared.roles import Role


def let_in() -> list[Role]:
    """Give each role the password that the settings have for it; which roles these were.

    The gateway's connections are limited to half of all, so that however many ask it, the workers
    have theirs.
    """
    passwords = settings().role_passwords
    with transaction() as session:
        session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": AdvisoryLock.ROLES})
        driver = session.connection().connection.driver_connection
        for role, password in passwords.items():
            # Hashed here, so that no log of the server's can hold it.
            verifier = encrypt_password(password.get_secret_value(), role, driver, "scram-sha-256")
            session.execute(
                text(f"ALTER ROLE {role} LOGIN PASSWORD :verifier"), {"verifier": verifier}
            )
        if Role.GATEWAY in passwords:
            most = session.execute(text("SELECT current_setting('max_connections')::int / 2"))
            limit = f"ALTER ROLE {Role.GATEWAY} CONNECTION LIMIT {most.scalar_one()}"
            session.execute(text(limit))
    return list(passwords)
