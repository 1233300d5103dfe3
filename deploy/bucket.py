"""Make the bucket that the platform keeps its objects in, where it is not there yet."""

from __future__ import annotations

from shared import storage


def main() -> None:
    """Make it, if need be."""
    storage.make_bucket()


if __name__ == "__main__":
    main()
