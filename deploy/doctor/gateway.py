"""The gateway: whether it can be reached where links lead, and says that it is ready."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

from deploy.doctor.finding import Finding, failure, well
from shared.config import Settings

PATIENCE_SECONDS = 5


def check(settings: Settings) -> Iterator[Finding]:
    """Ask `/readyz` at the public address."""
    url = f"{settings.public_url.rstrip('/')}/readyz"
    if not url.startswith(("http://", "https://")):
        yield failure("gateway", f"{url} is no address", mend="set OCTAVO_PUBLIC_URL")
        return
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS):  # noqa: S310 - looked at above
            yield well("gateway", f"{url} is ready")
    except urllib.error.HTTPError as error:
        yield failure("gateway", f"{url}: {_detail(error)}", mend="mend what it names")
    except OSError as error:
        mend = "run: octavo gateway; or set OCTAVO_PUBLIC_URL to where it is reached"
        yield failure("gateway", f"{url} does not answer: {error}", mend=mend)


def _detail(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read())["detail"])
    except (ValueError, KeyError):
        return f"answers {error.code}"
