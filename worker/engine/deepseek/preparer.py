"""A process that prepares pages: `python -m worker.engine.deepseek.preparer LINE MEMORY`.

Both are descriptors. Through LINE come orders, a JSON of the modes to choose from and then an image, and each is
answered with a JSON; the views themselves lie in MEMORY one behind the other. It knows no torch,
and ends when its line does.
"""

from __future__ import annotations

import json
import mmap
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Any

from shared.errors import PageUnreadable
from worker.engine import images
from worker.engine.deepseek import choice, views
from worker.engine.deepseek.intake import BUFFER_BYTES
from worker.engine.deepseek.views import Mode


def main(line: int, memory: int) -> None:
    """Prepare pages until the line ends."""
    with suppress(EOFError, OSError), mmap.mmap(memory, BUFFER_BYTES) as mapped:
        connection = Connection(line)
        while True:
            order = json.loads(connection.recv_bytes())
            modes = {name: Mode(**mode) for name, mode in order.items()}
            answer = prepared(connection.recv_bytes(), modes, mapped)
            connection.send_bytes(json.dumps(answer).encode())


def prepared(image: bytes, modes: Mapping[str, Mode], memory: mmap.mmap) -> dict[str, Any]:
    """Leave the views of a page in the memory; what to say of them."""
    try:
        page = images.decoded(image)
        cut = views.of(page, choice.among(modes, page))
    except PageUnreadable as error:
        return {"unreadable": error.detail}
    except MemoryError:
        return {"failed": "There was no memory to prepare the page."}
    memory.seek(0)
    for picture in (cut.whole, *cut.tiles):
        memory.write(picture.tobytes())
    return {
        "mode": asdict(cut.mode),
        "grid": cut.grid,
        "tiles": len(cut.tiles),
        "size": cut.size,
    }


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
