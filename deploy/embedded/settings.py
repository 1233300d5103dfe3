"""What the servers of one directory were given: made once, then remembered."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from deploy.embedded import private_file
from shared.roles import Role

if TYPE_CHECKING:
    from pathlib import Path


def _secret_key() -> str:
    return secrets.token_urlsafe(48)


def _role_passwords() -> dict[str, str]:
    return {role: secrets.token_urlsafe() for role in Role}


@dataclass
class Settings:
    """Ports by the name of the server, passwords, and the platform's own secret."""

    ports: dict[str, list[int]] = field(default_factory=dict)
    postgres_password: str = field(default_factory=secrets.token_urlsafe)  # of the owner
    role_passwords: dict[str, str] = field(default_factory=_role_passwords)
    valkey_password: str = field(default_factory=secrets.token_urlsafe)
    store_access_key: str = field(default_factory=lambda: secrets.token_hex(10))
    store_secret_key: str = field(default_factory=secrets.token_urlsafe)
    secret_key: str = field(default_factory=_secret_key)

    @classmethod
    def load(cls, path: Path) -> Settings:
        """Return the settings in `path`, or new ones where there are none.

        What an older version did not know of yet is made anew.
        """
        loaded = cls(**json.loads(path.read_text())) if path.exists() else cls()
        loaded.role_passwords = _role_passwords() | loaded.role_passwords
        return loaded

    def save(self, path: Path) -> None:
        """Write them for their owner only, whole or not at all."""
        private_file.write(path, json.dumps(asdict(self), indent=2))
