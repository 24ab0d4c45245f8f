"""Who there is, and the least that each needs of Kafka, Postgres and Redis. `facematch grants` prints it for them.

A role is a user of its own on each server that it needs: NAMESPACE-ROLE. What is not listed, it must not do; the tests
run every worker with its own role, and hold what the servers allow against this table.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy.sql.schema import Table

from schemas.events.base import Event
from schemas.faults import UserFault
from schemas.settings import Settings
from schemas.tables import (
    certificates,
    checks,
    decisions,
    deployment,
    duplicates,
    erased,
    individual_duplicates,
    individuals,
    pair_verdicts,
    retractions,
)
from schemas.topics import (
    CERTIFICATES,
    CPU_POOL,
    DEAD_LETTERS,
    DECISIONS,
    DEPLOYMENT,
    DUPLICATES,
    ENCODINGS,
    ERASURES,
    ESCALATIONS,
    GPU_POOL,
    INDIVIDUALS,
    MATCHER,
    REJECTIONS,
    SINK,
    SKIPPED,
    TOPICS,
    Topic,
)

_LONGEST_NAME = 63  # of a role in Postgres, which would cut a longer one off

READ, INSERT, UPDATE, DELETE = "SELECT", "INSERT", "UPDATE", "DELETE"
_ALL = (READ, INSERT, UPDATE, DELETE)
VERSION = "alembic_version"  # the table that says which migration the others are at
OUTBOX, LANES = "facematch_outbox", "facematch_outbox_lanes"  # of producers/outbox/outbox.sql

Privileges = Mapping[str, tuple[str, ...]]  # by the name of a table or view
_SCRIPTS = ("evalsha", "script|load")
_CONNECTING = ("ping", "select")


@dataclass(frozen=True, slots=True)
class Role:
    """One row. `uses`: what is run with it.

    Kafka: topics that it reads and writes; `groups`: its consumer groups, by how their names begin. `creates`: topics.
    Postgres: `tables`; `owns`: creates the tables. `outbox`: in the registration system's database.
    Redis: keys without the namespace, `*` for anything, which it writes (`keys`) or only reads; the commands for that.
    """

    name: str
    uses: str
    reads: tuple[Topic[Event], ...] = ()
    writes: tuple[Topic[Event], ...] = ()
    groups: tuple[str, ...] = ()
    sees_groups: bool = False
    creates: bool = False
    tables: Privileges = field(default_factory=dict)
    owns: bool = False
    outbox: Privileges = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    keys_read: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()


def _of(*tables: Table, to: tuple[str, ...] = (READ,)) -> Privileges:
    return {table.name: to for table in tables}


def _of_partition(*names: str) -> tuple[str, ...]:
    return tuple(f"{{*}}:{name}" for name in names)  # see runtime.servers.redis.key


ROLES = (
    Role(
        "setup",
        "`facematch setup`",
        reads=(DEPLOYMENT, ENCODINGS),
        writes=(DEPLOYMENT,),
        groups=("setup",),
        creates=True,
        owns=True,
    ),
    Role(
        "producer",
        "`facematch submit`, registration systems",
        writes=(INDIVIDUALS,),
        outbox={OUTBOX: (INSERT,)},
    ),
    Role(
        "outbox",
        "`facematch outbox`",
        writes=(INDIVIDUALS,),
        outbox={OUTBOX: (READ, UPDATE, DELETE), LANES: (READ, UPDATE)},
    ),
    Role(
        "encoder-cpu",
        "`facematch encode --pool cpu`",
        reads=(*CPU_POOL.reads, ERASURES, SKIPPED, DEPLOYMENT),
        writes=(ESCALATIONS, ENCODINGS, ERASURES, REJECTIONS, DEAD_LETTERS, SKIPPED),
        groups=(CPU_POOL.name,),
    ),
    Role(
        "encoder-gpu",
        "`facematch encode --pool gpu`",
        reads=(*GPU_POOL.reads, ERASURES, SKIPPED, DEPLOYMENT),
        writes=(ENCODINGS, REJECTIONS, DEAD_LETTERS, SKIPPED),
        groups=(GPU_POOL.name,),
    ),
    Role(
        "matcher",
        "`facematch match`",
        reads=(*MATCHER.reads, ERASURES, SKIPPED),
        writes=(ENCODINGS, DUPLICATES, DEAD_LETTERS, SKIPPED),
        groups=(MATCHER.name,),
        keys=_of_partition("manifest", "chunk:*", "compacted", "matched", "vitals"),
        commands=(
            *("get", "set", "del", "unlink", "exists", "persist", "scan", "hgetall", "hget", "hdel"),
            *_SCRIPTS,
        ),
    ),
    Role(
        "compaction",
        "`facematch compact`",
        reads=(ENCODINGS, DUPLICATES, ERASURES, SKIPPED),
        writes=(DUPLICATES, CERTIFICATES, DEAD_LETTERS, SKIPPED),
        groups=("compactor",),
        sees_groups=True,
        # A script may be given a key to write only, whatever it does with it: the manifest is one.
        keys=(*_of_partition("manifest", "chunk:*", "compacted", "lease"), "compaction-done"),
        keys_read=_of_partition("matched", "vitals"),
        commands=(
            *("get", "set", "del", "unlink", "exists", "persist", "scan", "hgetall", "hget", "hset", "hdel"),
            *("pttl", "pexpire", *_SCRIPTS),
        ),
    ),
    Role(
        "sink",
        "`facematch sink`",
        reads=(*SINK.reads, DEPLOYMENT, SKIPPED),
        writes=(DUPLICATES, DECISIONS, DEAD_LETTERS, SKIPPED),
        groups=(SINK.name,),
        tables={
            VERSION: (READ,),
            **_of(individuals, checks, duplicates, to=_ALL),
            **_of(retractions, decisions, to=(READ, INSERT, DELETE)),
            **_of(erased, to=(READ, INSERT, UPDATE)),
            **_of(certificates, to=(READ, INSERT)),
            **_of(deployment),
        },
    ),
    Role(
        "operator",
        "`facematch status`, `erase`, `erased`, `certificates`, `what-if`, `dead-letters list` and `show`",
        reads=TOPICS,
        writes=(INDIVIDUALS,),
        sees_groups=True,
        tables={
            **_of(individuals, checks, duplicates, retractions, decisions, certificates),
            **_of(individual_duplicates, pair_verdicts),
            erased.name: (READ, f"{UPDATE} (receipt)"),
        },
        outbox={OUTBOX: (READ,)},
        keys_read=("*",),
        commands=("get", "scan"),
    ),
    Role("scaler", "KEDA, which starts and stops encoders by their lag", sees_groups=True),
    Role(
        "repair",
        "`facematch replay`, `skip`, `dead-letters redrive` and `discard`: what may be sent again may be of any topic",
        reads=TOPICS,
        writes=TOPICS,
        sees_groups=True,
    ),
    Role(
        "reviewer",
        "`facematch duplicates`, `decide`, review tools",
        writes=(DECISIONS,),
        tables=_of(individuals, duplicates, decisions, individual_duplicates, pair_verdicts),
    ),
    Role(
        "downstream",
        "whoever uses the duplicates",
        reads=(DUPLICATES,),
        groups=("downstream",),
        tables=_of(individual_duplicates, duplicates, retractions, pair_verdicts),
    ),
)


class NameTooLongError(UserFault):
    """The namespace is too long for users of Postgres to have it in their names."""


def user_of(settings: Settings, role: Role) -> str:
    """Who a role is on every server. Raises NameTooLongError."""
    name = f"{settings.namespace}-{role.name}"
    if len(name) > _LONGEST_NAME:
        raise NameTooLongError(
            f"FACEMATCH_NAMESPACE: {name} has {len(name)} letters, and Postgres keeps {_LONGEST_NAME} of a user's name"
        )
    return name


def commands_of(role: Role) -> tuple[str, ...]:
    """Of Redis, those that connecting takes too; none where the role has no business there."""
    return (*_CONNECTING, *role.commands) if role.commands else ()
