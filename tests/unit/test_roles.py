"""The table of roles leaves out no topic, group or table, and what is printed from it is of the namespace alone."""

import itertools

import pytest
from typer.testing import CliRunner

from deploy.access.grants import acls, kafka_lines, outbox_lines, postgres_lines, redis_lines
from deploy.access.roles import LANES, OUTBOX, ROLES, VERSION, NameTooLongError, commands_of, user_of
from deploy.cli import app
from schemas.events.base import Event
from schemas.settings import Settings
from schemas.tables import deployment, individual_duplicates, metadata, pair_verdicts
from schemas.topics import CONSUMER_GROUPS, DEAD_LETTERS, TOPICS, ConsumerGroup, Topic

DANGEROUS = {"keys", "flushall", "flushdb", "config", "acl", "eval", "debug", "monitor", "shutdown", "migrate"}


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_every_topic_is_written_and_read_by_a_role_that_it_is_meant_for(topic: Topic[Event]) -> None:
    assert any(topic in role.writes for role in ROLES if role.writes != TOPICS)
    assert topic == DEAD_LETTERS or any(topic in role.reads for role in ROLES if role.reads != TOPICS)


@pytest.mark.parametrize("group", CONSUMER_GROUPS, ids=lambda group: group.name)
def test_every_consumer_group_is_one_roles(group: ConsumerGroup) -> None:
    (role,) = (role for role in ROLES if group.name in role.groups)
    assert all(topic in role.reads for topic in group.reads)


def test_the_groups_of_no_role_are_within_anothers() -> None:
    names = [(role.name, group) for role in ROLES for group in role.groups]
    for (one, name), (other, prefix) in itertools.permutations(names, 2):
        assert not name.startswith(prefix), f"{one} may join the groups of {other}"


def test_every_table_is_filled_by_one_role_and_read_by_another() -> None:
    names = {*metadata.tables, individual_duplicates.name, pair_verdicts.name, VERSION}
    assert {table for role in ROLES for table in role.tables} == names
    for table in metadata.tables.keys() - {deployment.name}:  # whose one row is made with it
        assert [role.name for role in ROLES if "INSERT" in role.tables.get(table, ())] == ["sink"]
        assert any(table in role.tables for role in ROLES if role.name != "sink"), table
    assert {table for role in ROLES for table in role.outbox} == {OUTBOX, LANES}


def test_only_redis_own_commands_for_keys_are_allowed() -> None:
    for role in ROLES:
        assert not DANGEROUS & set(commands_of(role))
        assert bool(role.keys or role.keys_read) == bool(commands_of(role))
        assert not [key for key in role.keys if key.startswith("*")]


def test_all_that_is_granted_is_of_the_namespace() -> None:
    settings = Settings(namespace="tenant-1")
    for acl in acls(settings):
        assert acl.user.startswith("tenant-1-")
        assert all(name.startswith("tenant-1.") for name in acl.names)
    for line in redis_lines(settings):
        keys = [word for word in line.split() if "~" in word]
        assert keys
        assert all(key.partition("~")[2].startswith("tenant-1:") for key in keys)
        assert "nopass" not in line
        assert "resetpass" not in line
    for line in kafka_lines(settings):
        assert "User:tenant-1-" in line
        assert "'*'" not in line


@pytest.mark.parametrize("server", ["kafka", "postgres", "outbox", "redis"])
def test_no_password_is_in_what_is_granted(server: str) -> None:
    secret = "s3cret"
    env = {f"FACEMATCH_{name}_PASSWORD": secret for name in ("KAFKA", "POSTGRES", "REDIS")}
    env |= {"FACEMATCH_KAFKA_USER": "me", "FACEMATCH_OUTBOX": f"postgresql://me:{secret}@host/registration"}
    done = CliRunner(env=env).invoke(app, ["grants", server])
    assert done.exit_code == 0, done.output
    assert secret not in done.output


def test_sql_quotes_what_it_is_given() -> None:
    settings = Settings(postgres="postgresql://host/o'ne%22", outbox="postgresql://host/t%22wo")
    script = "\n".join(postgres_lines(settings))
    assert "'o''ne\"'" in script
    assert '\\connect "o\'ne"""' in script
    assert '\\connect "t""wo"' in "\n".join(outbox_lines(settings))


def test_a_user_whose_name_postgres_would_cut_off_is_an_error() -> None:
    (encoder,) = (role for role in ROLES if role.name == "encoder-cpu")
    with pytest.raises(NameTooLongError, match="63"):
        user_of(Settings(namespace="n" * 60), encoder)
    done = CliRunner(env={"FACEMATCH_NAMESPACE": "n" * 60}).invoke(app, ["grants", "kafka"])
    assert done.exit_code == 2
    assert "FACEMATCH_NAMESPACE" in done.output


def test_the_table_for_people_names_every_user() -> None:
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["grants"])
    assert done.exit_code == 0
    for role in ROLES:
        assert f"facematch-{role.name}" in done.output
    *_, last = done.output.split("facematch-scaler")
    assert "sees how far consumer groups are" in last.partition("├")[0], "what needs anything shows it"


def test_nothing_asks_for_a_password_where_commands_are_read() -> None:
    """redis-cli would take the first of them for it."""
    done = CliRunner().invoke(app, ["grants", "redis"])
    assert "REDISCLI_AUTH" in done.stderr
    assert "--askpass" not in done.output
