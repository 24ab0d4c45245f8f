"""Servers that let nobody in without a password, Kafka by TLS too, and worlds in which each worker has its own role."""

import io
import json
import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import trustme
from confluent_kafka.admin import (  # type: ignore[attr-defined] # they are exported
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialAlteration,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from pydantic import SecretStr
from rich.console import Console
from sqlalchemy import text
from typer.testing import CliRunner, Result

from deploy.access.grants import kafka_lines, outbox_lines, postgres_lines, redis_lines
from deploy.access.roles import ROLES, user_of
from deploy.cli import app
from deploy.compaction.run import run_compaction
from deploy.local.servers import Server, postgres_programs, prepare_kafka, prepare_postgres, prepare_redis
from deploy.local.stack import Stack
from deploy.local.supervisor import OnLine
from producers.outbox.table import create_outbox
from runtime.servers.kafka import client_config
from runtime.servers.log import TopicLog
from runtime.servers.postgres import postgres_engine
from runtime.servers.redis import connect_once
from schemas.settings import Settings
from schemas.topics import DUPLICATES
from streams.compaction.compactor import CompactionPlan
from tests.integration.world import Lines, World

ADMIN, PASSWORD = "admin", "of-the-admin"
INSERT = text("INSERT INTO facematch_outbox (type, event) VALUES ('IndividualCreated', :event)")
ROLE_OF = {
    "encode-cpu": "encoder-cpu",
    "encode-gpu": "encoder-gpu",
    "match": "matcher",
    "sink": "sink",
    "outbox": "outbox",
}


def write_certificate(folder: Path, name: str, ca: trustme.CA, *identities: str, **validity: Any) -> tuple[Path, Path]:
    """The chain and the key (PKCS #8, as Java reads it) of a server; by default of this machine."""
    issued = ca.issue_cert(*(identities or ("127.0.0.1",)), **validity)
    key = load_pem_private_key(issued.private_key_pem.bytes(), None)
    chain_file, key_file = folder / f"{name}.pem", folder / f"{name}.key"
    chain_file.write_bytes(b"".join(one.bytes() for one in issued.cert_chain_pems))
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return chain_file, key_file


class SecuredStack(Stack):
    """A superuser of each server, and nobody else."""

    redis_program: Path | None = None  # the packages' where they are not named
    postgres_programs: Path | None = None

    def __init__(self, folder: Path, on_line: OnLine) -> None:
        super().__init__(folder, on_line)
        self.certificates = self.folder / "certificates"
        self.certificates.mkdir(parents=True)
        self.trusted = trustme.CA()
        self.ca = self.certificates / "ca.pem"
        self.trusted.cert_pem.write_to_path(str(self.ca))
        self.psql = ""

    def prepare(self, ports: Mapping[str, int]) -> tuple[Server, ...]:
        """See Stack."""
        return (self.redis(ports["redis"]), self.postgres(ports["postgres"]), self.kafka(ports))

    def redis(self, port: int) -> Server:
        """With users in a file."""
        users = self.folder / "users.acl"
        users.write_text(f"user default off\nuser {ADMIN} on >{PASSWORD} ~* &* +@all\n")
        options = {"aclfile": str(users), **self.redis_options(port)}
        return prepare_redis(self.folder / "redis", port, self.redis_program, options)

    def redis_options(self, port: int) -> dict[str, str]:  # noqa: ARG002 - others need it
        """More of them."""
        return {}

    def postgres(self, port: int) -> Server:
        """Whose superuser is postgres."""
        password = self.folder / "postgres.password"
        password.write_text(PASSWORD)
        initdb = ("--auth=scram-sha-256", f"--pwfile={password}")
        options = self.postgres_options()
        reads = (password, self.certificates)
        server = prepare_postgres(self.folder / "postgres", port, self.postgres_programs, initdb, options, reads)
        self.psql = str((self.postgres_programs or postgres_programs()) / "psql")
        return server

    def postgres_options(self) -> dict[str, str]:
        """More of them."""
        return {}

    def kafka(self, ports: Mapping[str, int]) -> Server:
        """By TLS and SCRAM, with ACLs; what it says to itself as a controller is open to this machine."""
        chain, key = write_certificate(self.certificates, "kafka", self.trusted)
        store = self.certificates / "kafka-store.pem"
        store.write_bytes(key.read_bytes() + chain.read_bytes())
        properties = f"""\
listener.security.protocol.map=CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL
ssl.keystore.type=PEM
ssl.keystore.location={store}
ssl.truststore.type=PEM
ssl.truststore.location={self.ca}
sasl.enabled.mechanisms=SCRAM-SHA-512
sasl.mechanism.inter.broker.protocol=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required username="{ADMIN}" password="{PASSWORD}";
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:{ADMIN};User:ANONYMOUS
"""
        admin = f"SCRAM-SHA-512=[name={ADMIN},password={PASSWORD}]"
        return prepare_kafka(
            self.folder / "kafka", ports["kafka"], ports["kafka_controller"], "SASL_SSL", properties, [admin]
        )

    def as_admin(self) -> dict[str, Any]:
        """Settings with which one may do everything."""
        password = SecretStr(PASSWORD)
        return {
            "kafka_tls": True,
            "kafka_ca": self.ca,
            "kafka_user": ADMIN,
            "kafka_password": password,
            "redis_user": ADMIN,
            "redis_password": password,
            "postgres_user": "postgres",
            "postgres_password": password,
        }


class SecuredWorld(World):
    """A tenant whose users `facematch grants` made. Passwords come from files, a folder for each role."""

    stack: SecuredStack

    def set_up(self) -> None:
        """As an operator does it: users, what they may do, topics and tables, what they may do with those."""
        self.secrets = self.settings.data_folder / "secrets"
        self._kafka_users()
        self._redis_users()
        self.psql(postgres_lines(self.settings))
        self._postgres_passwords(owners=True)
        done = self.facematch("setup", "setup", "--encoder", self.encoder)
        assert done.exit_code == 0, done.output
        self.psql(postgres_lines(self.settings))
        create_outbox(self.settings)
        self.psql(outbox_lines(self.settings))
        self._postgres_passwords(owners=False)

    def settings_of(self, role: str) -> Settings:
        """Those of a role."""
        user, password = f"{self.name}-{role}", SecretStr(password_of(role))
        login = {f"{server}_user": user for server in ("kafka", "redis", "postgres")}
        return self.settings.model_copy(
            update=login | {f"{server}_password": password for server in ("kafka", "redis", "postgres")}
        )

    def env_of(self, worker: str) -> dict[str, str]:
        """Of the worker's role, with the secrets in files."""
        return self.env_of_role(ROLE_OF[worker.rstrip("-0123456789")])

    def env_of_role(self, role: str) -> dict[str, str]:
        """See env_of."""
        folder = self.secrets / role
        folder.mkdir(parents=True, exist_ok=True)
        env = {name: value for name, value in self.env.items() if not name.endswith("_PASSWORD")}
        for server in ("kafka", "redis", "postgres"):
            env[f"FACEMATCH_{server.upper()}_USER"] = f"{self.name}-{role}"
            (folder / f"facematch_{server}_password").write_text(password_of(role) + "\n")
        return {**env, "FACEMATCH_SECRETS": str(folder)}

    def facematch(self, role: str, *arguments: str, **env: str) -> Result:
        """What a command of the command line says, run with a role."""
        return CliRunner(env={**os.environ, **self.env_of_role(role), **env}).invoke(app, arguments)

    def psql(self, lines: Iterable[str]) -> str:
        """Have psql run lines as the superuser."""
        server = ["-h", "127.0.0.1", "-p", str(self.postgres_port), "-U", "postgres", "postgres"]
        command = [self.stack.psql, "-v", "ON_ERROR_STOP=1", "-q", *server]
        env = {**os.environ, "PGPASSWORD": PASSWORD}
        done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, check=False, env=env)
        assert done.returncode == 0, done.stderr
        return done.stderr

    @property
    def postgres_port(self) -> int:
        return int(self.stack.addresses["FACEMATCH_POSTGRES"].rpartition(":")[2].partition("/")[0])

    def _kafka_users(self) -> None:
        admin = AdminClient(client_config(self.settings, "test"))
        users = [user_of(self.settings, role) for role in ROLES]
        credentials: list[UserScramCredentialAlteration] = [
            UserScramCredentialUpsertion(
                user,
                ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096),
                password_of(user.removeprefix(f"{self.name}-")).encode(),
            )
            for user in users
        ]
        for done in admin.alter_user_scram_credentials(credentials).values():
            done.result()
        bindings = [binding for line in kafka_lines(self.settings) for binding in bindings_of(line)]
        for done in admin.create_acls(bindings).values():
            done.result()

    def _redis_users(self) -> None:
        for line in redis_lines(self.settings):
            user = line.split()[2]
            self.redis(line)
            self.redis(f"ACL SETUSER {user} >{password_of(user.removeprefix(f'{self.name}-'))}")

    def redis(self, line: str) -> Any:
        """What Redis answers its administrator."""
        with closing(connect_once(self.settings)) as redis:
            return redis.execute_command(*line.split())  # type: ignore[no-untyped-call] # redis-py's

    def _postgres_passwords(self, owners: bool) -> None:
        for role in ROLES:
            if role.owns if owners else role.tables or role.outbox:
                user = user_of(self.settings, role)
                self.psql([f"ALTER ROLE \"{user}\" PASSWORD '{password_of(role.name)}';"])


@contextmanager
def secured_world(folder: Path, kind: type[SecuredStack] = SecuredStack) -> Iterator[SecuredWorld]:
    """On servers of its own. They are not below pytest's folder: see the fixture `servers`."""
    lines = Lines()
    with tempfile.TemporaryDirectory(prefix="facematch-secured-") as place:
        stack = kind(Path(place), lines.add)
        try:
            stack.start_servers(lambda _: None)
            world = SecuredWorld(stack, lines, folder, **stack.as_admin())
            yield world
            world.stop()
        finally:
            stack.stop()


def password_of(role: str) -> str:
    """A role's password, the same on every server."""
    return f"of-{role}"


def bindings_of(line: str) -> list[Any]:
    """What kafka-acls.sh would do that is given these words."""
    words = shlex.split(line)
    assert words[:3] == ["kafka-acls.sh", "$@", "--add"]
    options: dict[str, list[str]] = {}
    for name, value in zip(words[3::2], words[4::2], strict=True):
        options.setdefault(name, []).append(value)
    (user,) = options.pop("--allow-principal")
    (pattern,) = options.pop("--resource-pattern-type", ["literal"])
    operations = options.pop("--operation")
    ((kind, names),) = options.items()
    return [
        AclBinding(
            ResourceType[kind.removeprefix("--").upper()],
            name,
            ResourcePatternType[pattern.upper()],
            user,
            "*",
            AclOperation[re.sub("(?<=[a-z])(?=[A-Z])", "_", operation).upper()],
            AclPermissionType.ALLOW,
        )
        for name in names
        for operation in operations
    ]


def _registration(who: str, photo: Path) -> str:
    event = {"collection": "default", "individual_id": who, "revision": 1, "photo": {"uri": photo.as_uri()}}
    return json.dumps(event)


def each_role_does_its_work(world: SecuredWorld, photos: Path, tmp_path: Path) -> None:
    """From a registration to a row, and on: three people by two ways, a decision, a compaction, an erasure."""
    world.start("encode-cpu", "encode-gpu", "match", "sink", "outbox")
    people = tmp_path / "people.csv"
    people.write_text(f"individual_id,photo,detector\na,{photos / 'obama.jpg'},hog\nb,{photos / 'obama2.jpg'},cnn\n")
    submitted = world.facematch("producer", "submit", str(people))
    assert submitted.exit_code == 0, submitted.output
    with postgres_engine(world.settings_of("producer")).begin() as connection:
        connection.execute(INSERT, {"event": _registration("c", photos / "obama_partial_face.jpg")})
    world.wait(lambda: world.count("checked") == 3, "all three are checked")
    assert world.pairs() == {("a", "b"), ("a", "c"), ("b", "c")}

    shown = world.facematch("reviewer", "duplicates", "--json")
    assert shown.exit_code == 0, shown.output
    pair = json.loads(shown.output.splitlines()[0])
    decided = world.facematch("reviewer", "decide", pair["pair_id"], "different", "--by", "me")
    assert decided.exit_code == 0, decided.output

    made = io.StringIO()
    assert run_compaction(Console(file=made), world.settings_of("compaction"), CompactionPlan(collection="default")), (
        made
    )
    assert "in service" in made.getvalue()
    world.wait(lambda: world.redis(f"KEYS {world.name}:*:manifest"), "the matcher has saved what compaction made")

    done = world.facematch("operator", "erase", "b")
    assert done.exit_code == 0, done.output
    again = world.facematch("operator", "erased", "b")
    assert again.exit_code == 0, again.output
    world.wait(lambda: not world.pairs() - {("a", "c")}, "the erased have no pairs")
    certified = world.facematch("operator", "certificates", "--json")
    assert len(certified.output.splitlines()) == 1, certified.output
    status = world.facematch("operator", "status")
    assert status.exit_code == 0, status.output
    assert "rows waiting" in status.output

    with TopicLog(world.settings_of("downstream"), DUPLICATES, "downstream") as log:
        assert any(span.end for span in log.spans().values())
    with postgres_engine(world.settings_of("downstream")).connect() as connection:
        view = connection.execute(text("SELECT duplicates FROM individual_duplicates WHERE individual_id = 'a'"))
        assert len(view.all()) == 1
    assert world.restarts() == {}
    passwords = [password_of(role.name) for role in ROLES]
    assert not [line for line in world.lines.since(0) if any(password in line for password in passwords)]


def words_of(done: Result) -> str:
    """What was said, without the frame around it."""
    return " ".join(done.output.translate(dict.fromkeys(map(ord, "│╭╮╰╯─"), " ")).split())
