"""The table of roles in the languages of the servers: each may be run again, and leaves passwords alone."""

import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sqlalchemy import make_url

from deploy.access.roles import OUTBOX, ROLES, VERSION, Privileges, Role, commands_of, user_of
from runtime.servers.postgres import postgres_url
from schemas.envelope import full_name
from schemas.events.base import Event
from schemas.settings import Settings
from schemas.topics import Topic


@dataclass(frozen=True, slots=True)
class Acl:
    """What a user may do with topics or groups of Kafka. `prefixed`: with all whose names begin so."""

    user: str
    operations: tuple[str, ...]
    kind: str  # topic or group
    names: tuple[str, ...]
    prefixed: bool = False


def acls(settings: Settings) -> Iterator[Acl]:
    """All that roles need of Kafka; that a topic is there, and how it is kept, everyone may know who uses one."""
    everything = (full_name("", settings.namespace),)

    def named(topics: Iterable[Topic[Event]]) -> tuple[str, ...]:
        return tuple(full_name(topic.name, settings.namespace) for topic in topics)

    for role in ROLES:
        user = user_of(settings, role)
        if role.creates:
            setup = ("Create", "Describe", "DescribeConfigs", "AlterConfigs")
            yield Acl(user, setup, "topic", everything, prefixed=True)
        else:
            yield Acl(user, ("Describe", "DescribeConfigs"), "topic", everything, prefixed=True)
        if role.reads:
            yield Acl(user, ("Read",), "topic", named(role.reads))
        if role.writes:
            yield Acl(user, ("Write",), "topic", named(role.writes))
        if role.groups:
            groups = tuple(full_name(group, settings.namespace) for group in role.groups)
            yield Acl(user, ("Read",), "group", groups, prefixed=True)
        if role.sees_groups:
            yield Acl(user, ("Describe",), "group", everything, prefixed=True)


def kafka_lines(settings: Settings) -> Iterator[str]:
    """A shell script of kafka-acls.sh, which is given the broker's address as its arguments."""
    for acl in acls(settings):
        words = ["--add", "--allow-principal", f"User:{acl.user}"]
        words += [word for operation in acl.operations for word in ("--operation", operation)]
        words += [word for name in acl.names for word in (f"--{acl.kind}", name)]
        if acl.prefixed:
            words += ["--resource-pattern-type", "prefixed"]
        yield f'kafka-acls.sh "$@" {shlex.join(words)}'


def postgres_lines(settings: Settings) -> Iterator[str]:
    """For psql as a superuser: users and the database, and once its tables are there, what each may do with them."""
    database = postgres_url(settings).database or ""
    yield from _users(settings, [role for role in ROLES if role.tables or role.owns])
    (owner,) = (user_of(settings, role) for role in ROLES if role.owns)
    yield _unless(
        f"SELECT format('CREATE DATABASE %I OWNER %I', {_text(database)}, {_text(owner)})",
        f"SELECT FROM pg_database WHERE datname = {_text(database)}",
    )
    yield f"\\connect {_name(database)}"
    yield from _unless_missing(VERSION, f"no tables yet: let {owner} run facematch setup, then do this again")
    yield from _grants([(user_of(settings, role), role.tables) for role in ROLES])


def outbox_lines(settings: Settings) -> Iterator[str]:
    """For psql as the owner of the outbox, in the registration system's database."""
    yield from _users(settings, [role for role in ROLES if role.outbox])
    url = postgres_url(settings) if settings.outbox is None else make_url(settings.outbox)
    yield f"\\connect {_name(url.database or '')}"
    yield from _unless_missing(OUTBOX, "no outbox yet: create it by producers/outbox/outbox.sql, then do this again")
    yield from _grants([(user_of(settings, role), role.outbox) for role in ROLES])


def redis_lines(settings: Settings) -> Iterator[str]:
    """For redis-cli: a user for each role that needs Redis."""
    for role in ROLES:
        if commands := commands_of(role):
            keys = [f"~{settings.namespace}:{key}" for key in role.keys]
            keys += [f"%R~{settings.namespace}:{key}" for key in role.keys_read]
            allowed = [f"+{command}" for command in commands]
            words = ["on", "resetkeys", "resetchannels", "-@all", *keys, *allowed]
            yield f"ACL SETUSER {user_of(settings, role)} {' '.join(words)}"


def _users(settings: Settings, roles: list[Role]) -> Iterator[str]:
    for role in roles:
        name = _text(user_of(settings, role))
        yield _unless(f"SELECT format('CREATE ROLE %I LOGIN', {name})", f"SELECT FROM pg_roles WHERE rolname = {name}")


def _unless(statement: str, found: str) -> str:
    return f"{statement} WHERE NOT EXISTS ({found}) \\gexec"


def _unless_missing(table: str, message: str) -> Iterator[str]:
    yield f"SELECT to_regclass({_text(table)}) IS NULL AS missing \\gset"
    yield f"\\if :missing\n\\warn {_text(message)}\n\\quit\n\\endif"


def _grants(allowed: list[tuple[str, Privileges]]) -> Iterator[str]:
    """From nothing: what a user was allowed before and needs no more is taken away."""
    users = ", ".join(_name(user) for user, privileges in allowed if privileges)
    yield f"REVOKE ALL ON {', '.join(sorted({table for _, tables in allowed for table in tables}))} FROM {users};"
    yield f"GRANT USAGE ON SCHEMA public TO {users};"
    for user, privileges in allowed:
        alike = defaultdict(list)
        for table, what in privileges.items():
            alike[what].append(table)
        for what, tables in alike.items():
            yield f"GRANT {', '.join(what)} ON {', '.join(tables)} TO {_name(user)};"


def _name(identifier: str) -> str:
    escaped = identifier.replace('"', '""')
    return f'"{escaped}"'


def _text(value: str) -> str:
    escaped = value.replace("'", "''")
    return f"'{escaped}'"
