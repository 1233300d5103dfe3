"""Filling the store's buffers, so that what grows after is what would grow for ever.

SeaweedFS keeps the last changes of entries in windows of 8 MB, twice five of them with copies, and
new entries in 8 MB before they go to a table. Their size does not change, but page by page they come
into memory as they are used, at the load of a soak for an hour. Large changes do it in seconds.
"""

from __future__ import annotations

from benchmarks import store
from deploy.local import Platform

CHANGES = 800
"""At 50 KB, and what they replace told with them: twice what all windows hold."""
METADATA = {"filling": "x" * 50_000}
OBJECTS = 20


def fill(platform: Platform) -> None:
    """Change a few objects often; they are gone when it returns."""
    told = platform.environment
    client, bucket = store.client(told), told["OCTAVO_STORE_BUCKET"]
    keys = [f"filling/{number}" for number in range(OBJECTS)]
    for change in range(CHANGES):
        key = keys[change % OBJECTS]
        client.put_object(Bucket=bucket, Key=key, Body=b"", Metadata=METADATA)
    for key in keys:
        client.delete_object(Bucket=bucket, Key=key)
    client.close()
