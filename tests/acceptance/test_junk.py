"""Whatever lies in the broker, the worker lives and does its work."""

import io
import json
import pickle

import redis

from client.sdk import Octavo
from deploy.local import Platform
from tests import documents

QUEUES = ("octavo:prepare", "octavo:recognise.fake")


def envelope(task: str = "prepare", args: object = (1,), **changes: object) -> bytes:
    """A message as Celery writes it, changed as told."""
    body = json.dumps([args, {}, {"callbacks": None, "errbacks": None, "chain": None}])
    message = {
        "body": body,
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"task": task, "id": "x", "lang": "py", "argsrepr": "", "kwargsrepr": "{}"},
        "properties": {
            "delivery_tag": "x",
            "delivery_info": {"exchange": "octavo", "routing_key": "prepare"},
            "correlation_id": "x",
        },
    } | changes
    return json.dumps(message).encode()


JUNK = {
    "no JSON": b"\x80\x04not json at all",
    "JSON that is no message": b"[1, 2, 3]",
    "an empty message": b"",
    "a message without properties": envelope(properties={}),
    "a message without headers": envelope(headers={}),
    "an unknown task": envelope("drop_everything"),
    "a foreign id": envelope(args=[2**40]),
    "an id beyond what a row can have": envelope(args=[2**80]),
    "no id": envelope(args=[]),
    "an id that is none": envelope(args=[{"$gt": 0}]),
    "ten megabytes": envelope(args=["x" * 10 * 1024**2]),
    "a pickle": envelope(
        body=pickle.dumps([(1,), {}, {}]).decode("latin-1"),
        **{"content-type": "application/x-python-serialize", "content-encoding": "binary"},
    ),
    "an unknown type": envelope(**{"content-type": "text/evil"}),
}


def test_junk_is_rejected_and_the_workers_live(fake_platform: Platform, octavo: Octavo) -> None:
    workers = {name: pid for name, pid in fake_platform.pids().items() if "worker" in name}

    with redis.Redis.from_url(fake_platform.environment["OCTAVO_BROKER_URL"]) as broker:
        for queue in QUEUES:
            for message in JUNK.values():
                broker.lpush(queue, message)
        job = octavo.submit(io.BytesIO(documents.pdf(pages=3)), name="a.pdf")
        job = octavo.wait(job.id, timeout=60)

        assert job.status == "succeeded", job.error
        assert {name: fake_platform.pids().get(name) for name in workers} == workers
        assert [broker.llen(queue) for queue in QUEUES] == [0, 0]
    assert all((fake_platform.logs / f"{name}.log").stat().st_size < 10**6 for name in workers)
