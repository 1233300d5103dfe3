"""The Celery application. Celery carries ids from the dispatcher to free hands, and nothing else.

What is to be done, by whom and how often is decided in Postgres (`shared.work`): a message that is
lost is sent again, a message that comes twice does nothing. Hence the settings below.
"""

from __future__ import annotations

from collections.abc import Sequence

from celery import Celery
from kombu.entity import Exchange, Queue

from shared.config import settings
from shared.status import WorkKind
from shared.work import BROKER_PREFIX, recognise_queue

app = Celery(
    "octavo", include=["worker.tasks.prepare", "worker.tasks.recognise", "worker.tasks.assemble"]
)


def count_waiting(names: Sequence[str]) -> int:
    """How many messages lie in these queues; asked over a connection of its own.

    Raises whatever a broker that is away makes the client raise.
    """
    with app.connection_for_read() as connection:
        lists = connection.default_channel.client
        return sum(int(lists.llen(name)) for name in names)


def queues() -> list[str]:
    """The names of all queues of this deployment."""
    engines = [recognise_queue(engine) for engine in settings().engines]
    return [WorkKind.PREPARE, WorkKind.ASSEMBLE, *engines]


def _queue(name: str) -> Queue:
    """A direct queue. Celery's default would give every queue the same routing key."""
    return Queue(name, Exchange("octavo"), routing_key=name)  # type: ignore[no-untyped-call]


app.conf.update(
    broker_url=settings().broker_url.get_secret_value(),
    broker_transport="worker.broker:Transport",  # of Redis, hardened
    broker_transport_options={
        # No call on a dead broker waits for ever; longer than the 1 s that a BRPOP blocks.
        "socket_timeout": 2,
        "socket_connect_timeout": 2,
        "socket_keepalive": True,
        "health_check_interval": 5,  # a half-open BRPOP is dropped after about 11 s, not 51
        # No book of unacknowledged messages in the broker: it would cost two round trips a task,
        # and what it could bring back, the sweeper sends again sooner.
        "ack_emulation": False,
        "global_keyprefix": BROKER_PREFIX,
        "max_connections": 20,
    },
    broker_connection_timeout=2,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,  # the default gives up after 100
    task_queues=[_queue(name) for name in queues()],
    task_create_missing_queues=False,  # a mistyped queue is an error, not one that nobody reads
    task_acks_late=True,  # with multiplier 1: a worker takes one message a slot, and hoards none
    worker_prefetch_multiplier=1,
    task_reject_on_worker_lost=False,  # no unbounded redelivery: the lease brings the row back
    task_acks_on_failure_or_timeout=True,  # the message is spent; the row says what follows
    worker_cancel_long_running_tasks_on_connection_loss=False,  # a page does not care about Redis
    task_publish_retry=False,  # the dispatcher has its own loop
    task_ignore_result=True,  # results are rows
    result_backend=None,
    task_serializer="json",
    accept_content=["json"],  # no pickle from a broker, ever
    worker_enable_remote_control=False,  # health is in the workers table
    worker_send_task_events=False,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
)
