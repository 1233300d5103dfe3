"""Makes a database ready for use: its schema, its roles, a first tenant, an API key in a file.

    python -m deploy.first_start FILE

A process of its own, because the settings of a process are read once. Where the file is there it
is left as it is; where it was lost the key cannot be had again, so another one is made.
"""

from __future__ import annotations

import sys
from pathlib import Path

from deploy import keys, roles
from deploy.embedded import private_file
from migrations import run
from shared import keys as api_keys
from shared.db import transaction


def main() -> None:
    """Bring the schema up to date, let the roles in, and see that there is a key."""
    run.upgrade()
    roles.let_in()
    file = Path(sys.argv[1])
    if not file.exists():
        private_file.write(file, keys.first_key() or _another_key())


def _another_key() -> str:
    with transaction() as session:
        tenant = api_keys.find_tenant(session, keys.FIRST_TENANT)
        tenant = tenant or api_keys.create_tenant(session, keys.FIRST_TENANT)
        return api_keys.create(session, tenant, label="made at a start, the key file being lost")


if __name__ == "__main__":
    main()
