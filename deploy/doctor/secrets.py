"""Whether the secrets are secrets."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from deploy.doctor.finding import Finding, failure, well
from shared.config import Settings

GUESSED = {
    "",
    "admin",
    "changeme",
    "default",
    "example",
    "minioadmin",
    "octavo",
    "password",
    "postgres",
    "redis",
    "root",
    "secret",
    "test",
    "valkey",
}
FEWEST_CHARACTERS = 12
FEWEST_DIFFERENT = 8
MEND = "make one, such as by: python -c 'import secrets; print(secrets.token_urlsafe(48))'"


def check(settings: Settings) -> Iterator[Finding]:
    """Every secret is long and nobody's first guess. None of them is shown."""
    secrets = {
        "OCTAVO_SECRET_KEY": settings.secret_key.get_secret_value(),
        "the password in OCTAVO_DATABASE_URL": _password(settings.database_url.get_secret_value()),
        "the password in OCTAVO_BROKER_URL": _password(settings.broker_url.get_secret_value()),
        "OCTAVO_STORE_SECRET_KEY": settings.store_secret_key.get_secret_value(),
    }
    weak = [name for name, secret in secrets.items() if _is_weak(secret)]
    if weak:
        yield failure("secrets", f"easily guessed: {', '.join(weak)}", mend=MEND)
    else:
        yield well("secrets", f"{len(secrets)} of them, none a default")


def _is_weak(secret: str) -> bool:
    known = secret.lower() in GUESSED or "change" in secret.lower()
    return known or len(secret) < FEWEST_CHARACTERS or len(set(secret)) < FEWEST_DIFFERENT


def _password(url: str) -> str:
    return unquote(urlsplit(url).password or "")
