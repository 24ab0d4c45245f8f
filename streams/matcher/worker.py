"""The matcher: Faust hands over `encodings`, a thread matches them, and only then are they acknowledged."""

import asyncio
import signal

import faust
import mode
import structlog

from runtime.process.stopping import exit_within
from runtime.servers.kafka import COMMIT_EVERY_S, SESSION_TIMEOUT_S
from runtime.servers.lag import Ends, Lag
from schemas.envelope import StoredRecord, full_name
from schemas.settings import Settings
from schemas.shard import Shard
from schemas.topics import ENCODINGS, matcher_of
from streams.matcher.bootstrap import context_of
from streams.matcher.credentials import credentials
from streams.matcher.metering import show_galleries
from streams.matcher.partitions import Matcher
from streams.matcher.whole_batches import read_whole_batches

log = structlog.stdlib.get_logger(__name__)


def build_app(settings: Settings, shard: Shard, matcher: Matcher) -> faust.App:
    """The Faust application: one topic in, one agent, one batch at a time."""
    read_whole_batches()
    settings.data_folder.mkdir(parents=True, exist_ok=True)  # Faust makes a folder there, and leaves it empty
    app = _app(settings, shard)
    _follow_assignments(app, matcher)
    # The events that arrive while a batch is matched are the next batch: one if there is little to do, else many.
    arrived: asyncio.Queue[faust.EventT] = asyncio.Queue(settings.match_batch)

    @app.agent(_encodings(app, settings), concurrency=1, name="match")
    async def match(stream: faust.Stream) -> None:
        async for event in stream.noack().events():
            await arrived.put(event)

    @app.task
    async def work() -> None:
        while True:
            events = [await arrived.get()]
            while len(events) < settings.match_batch and not arrived.empty():
                events.append(arrived.get_nowait())
            lost = await matcher.process([_record(event) for event in events])
            for event in events:
                if event.message.partition not in lost:
                    event.ack()

    @app.timer(interval=2.0, name="look after")
    async def look_after(*_: object) -> None:
        try:
            await matcher.look_after()
        except Exception as error:
            await app.crash(error)
            raise

    return app


def _app(settings: Settings, shard: Shard) -> faust.App:
    return faust.App(
        full_name(matcher_of(shard).name, settings.namespace),
        broker=";".join(f"kafka://{address.strip()}" for address in settings.kafka.split(",")),
        broker_credentials=credentials(settings),
        store="memory://",
        datadir=settings.data_folder / "faust",
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        table_standby_replicas=0,
        stream_wait_empty=False,
        consumer_auto_offset_reset="earliest",
        broker_commit_interval=COMMIT_EVERY_S,
        broker_session_timeout=SESSION_TIMEOUT_S,
        agent_supervisor=mode.CrashingSupervisor,
        worker_redirect_stdouts=False,
    )


def _encodings(app: faust.App, settings: Settings) -> faust.TopicT:
    return app.topic(
        full_name(ENCODINGS.name, settings.namespace),
        key_type=bytes,
        value_type=bytes,
        key_serializer="raw",
        value_serializer="raw",
    )


def _follow_assignments(app: faust.App, matcher: Matcher) -> None:
    """Let the matcher have the partitions that Kafka assigns to this process, and no others."""

    async def on_partitions_revoked(*_: object, **__: object) -> None:
        await matcher.give_up()

    async def on_rebalance_complete(*_: object, **__: object) -> None:
        await matcher.take_over({place.partition for place in app.consumer.assignment()})

    app.on_partitions_revoked.connect(on_partitions_revoked, weak=False)
    app.on_rebalance_complete.connect(on_rebalance_complete, weak=False)


def start_matcher(settings: Settings, shard: Shard) -> Matcher:
    """A matcher with its real parts, its ownership ticking, and its gauges ready to be scraped."""
    context = context_of(settings, shard)
    matcher = Matcher(context)
    context.ownership.start()
    group = matcher_of(shard).name
    Lag(group, matcher.standings, Ends(settings, group).of).show()
    show_galleries(settings, matcher.vitals)
    return matcher


class _Worker(faust.Worker):
    def _schedule_shutdown(self, number: signal.Signals) -> None:
        exit_within()
        super()._schedule_shutdown(number)

    def _crash(self, reason: BaseException) -> None:
        exit_within()  # a thread may end while others wait for it: the process would never end
        super()._crash(reason)


def run(settings: Settings, shard: Shard = Shard()) -> None:
    """Match until SIGTERM or SIGINT, then raise SystemExit. Records that are not acknowledged by then come again."""
    matcher = start_matcher(settings, shard)
    app = build_app(settings, shard, matcher)
    worker = _Worker(app, override_logging=False, redirect_stdouts=False, quiet=True, loglevel=None)
    worker.spinner = None
    try:
        worker.execute_from_commandline()
    finally:
        matcher.close()


def _record(event: faust.EventT) -> StoredRecord:
    message = event.message
    return StoredRecord(
        topic=ENCODINGS.name,
        key=message.key,
        value=message.value,
        headers=tuple(message.headers),
        partition=message.partition,
        offset=message.offset,
        timestamp=int(message.timestamp * 1000),
    )
