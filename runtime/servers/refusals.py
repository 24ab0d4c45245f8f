"""Servers that refuse, or are refused: a certificate, a password or a right is wrong, and waiting does not mend it.

Asked for at the start of every worker and command. What is refused later on is logged, and waited for like an outage:
the new password or certificate may be on its way.
"""

import re
import socket
import ssl
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from runtime.servers.kafka import client_config
from runtime.servers.redis import connect_once
from schemas.faults import UserFault
from schemas.settings import Settings

_ASKED_S = 1.0  # of a broker that is refused, librdkafka asks until the time is up
_LOGIN = (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED)
_RIGHTS = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
)
_CUT_OFF = (ssl.SSLEOFError, ssl.SSLZeroReturnError)  # by a server that is starting or stopping, say
_TLS_OF_POSTGRES = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"  # SSLRequest: a client's first bytes; the answer is S
# libpq's texts for a connection that is refused, where the server speaks English; it has no code for it.
_REFUSALS_OF_POSTGRES = re.compile(
    "authentication failed|no password supplied|no pg_hba.conf entry|permission denied|is not permitted to log in"
    '|role ".*" does not exist|certificate|does not support SSL'
)
# OpenSSL's X509_V_ERR_…, https://docs.openssl.org/master/man3/X509_STORE_CTX_get_error/
_REMEDIES = {
    9: "compare the clocks of both machines",
    10: "renew it, and have the server read the new one",
    62: "connect by a name that stands in it",
    64: "connect by an address that stands in it",
}


class AccessRefusedError(UserFault):
    """The text names who refuses whom, why, and what to do."""


def ask_kafka(settings: Settings, times: int = 5) -> None:
    """Return once a broker answers. Raises AccessRefusedError, KafkaException where none answers in as many seconds."""
    if settings.kafka_tls:
        for address in settings.kafka.split(","):
            host, _, port = address.strip().rpartition(":")
            if problem := _certificate_problem(host.strip("[]"), int(port), settings.kafka_ca, "FACEMATCH_KAFKA_CA"):
                raise AccessRefusedError(f"Kafka at {address.strip()} is not trusted: {problem}")
    reported: list[KafkaError] = []
    admin = AdminClient(client_config(settings, "ask") | {"error_cb": reported.append})
    for number in range(times):
        try:
            admin.list_topics(timeout=_ASKED_S)
            return
        except KafkaException as error:
            admin.poll(0)
            if any(one.code() in _LOGIN for one in reported):
                raise _wrong_login("Kafka", settings.kafka_user, "KAFKA") from None
            if number == times - 1:
                raise KafkaException(reported[0] if reported else error.args[0]) from None


def refused_by_kafka(settings: Settings, error: KafkaError) -> AccessRefusedError | None:
    """Why what a broker was asked for failed, None where it does not refuse."""
    if error.code() in _RIGHTS:
        who = settings.kafka_user or "who gives no user"
        return AccessRefusedError(
            f"Kafka refuses {who}: {error.str().removeprefix('Broker: ')}. `facematch grants kafka` prints what each "
            "user must be allowed"
        )
    try:
        ask_kafka(settings)
    except AccessRefusedError as refusal:
        return refusal
    except KafkaException:
        pass
    return None


def ask_redis(settings: Settings) -> None:
    """Return if Redis answers. Raises AccessRefusedError, redis.ConnectionError where it does not answer."""
    with closing(connect_once(settings)) as redis:
        try:
            redis.ping()
        except RedisError as error:
            raise refused_by_redis(settings, error) or error from None


def refused_by_redis(settings: Settings, error: RedisError) -> AccessRefusedError | None:
    """Why what Redis was asked for failed, None where it does not refuse."""
    if isinstance(error, AuthenticationError):
        return _wrong_login("Redis", settings.redis_user or urlsplit(settings.redis).username, "REDIS")
    if isinstance(error, NoPermissionError):
        return AccessRefusedError(
            f"Redis refuses: {error}. `facematch grants redis` prints what each user must be allowed"
        )
    if isinstance(cause := error.__context__, ssl.SSLError) and not isinstance(cause, _CUT_OFF):
        return AccessRefusedError(f"Redis is not trusted: {_explained(cause, 'FACEMATCH_REDIS_CA')}")
    return None


def refused_by_postgres(url: URL, error: DBAPIError, ca: Path | None = None) -> AccessRefusedError | None:
    """Why what Postgres at an address was asked for failed, None where it does not refuse."""
    text = str(error.orig).strip().partition("\n")[0]
    if getattr(error.orig, "pgcode", None) == "42501":  # insufficient_privilege
        return AccessRefusedError(
            f"Postgres refuses {url.username}: {text}. `facematch grants postgres` prints what each must be allowed"
        )
    if not _REFUSALS_OF_POSTGRES.search(text):
        return None
    if "certificate" in text and url.host:
        named = ca or url.query.get("sslrootcert")
        where = (url.host, url.port or 5432)
        problem = _certificate_problem(*where, named, "FACEMATCH_POSTGRES_CA", _TLS_OF_POSTGRES)
        return AccessRefusedError(f"Postgres at {url.host} is not trusted: {problem or text}")
    if re.search("SSL|no encryption", text):
        wanted = "it wants TLS: set FACEMATCH_POSTGRES_CA" if "no encryption" in text else "it has no TLS"
        return AccessRefusedError(f"Postgres at {url.host} does not let us in: {text}; {wanted}")
    return _wrong_login("Postgres", url.username, "POSTGRES", text)


def _wrong_login(server: str, user: str | None, setting: str, text: str = "") -> AccessRefusedError:
    who = f"user {user}" if user else "who gives no user"
    quoted = f" ({text.rpartition('FATAL: ')[2].strip()})" if text else ""
    return AccessRefusedError(
        f"{server} refuses {who}{quoted}: set FACEMATCH_{setting}_USER and FACEMATCH_{setting}_PASSWORD to a user that "
        "it knows. `facematch grants` lists the users"
    )


def _certificate_problem(host: str, port: int, ca: object, setting: str, hello: bytes = b"") -> str | None:
    """What is wrong with a server's certificate, None where nothing is or nobody answers."""
    context = ssl.create_default_context(cafile=None if ca is None else str(ca))
    try:
        with socket.create_connection((host, port), timeout=5) as plain:
            if hello:
                plain.sendall(hello)
                if plain.recv(1) != b"S":
                    return "it speaks no TLS"
            with context.wrap_socket(plain, server_hostname=host):
                return None
    except _CUT_OFF:
        return None
    except ssl.SSLError as error:
        return _explained(error, setting)
    except OSError:
        return None


def _explained(error: ssl.SSLError, setting: str) -> str:
    if not isinstance(error, ssl.SSLCertVerificationError):
        return f"it does not speak TLS as we do ({error.reason or error})"
    remedy = _REMEDIES.get(error.verify_code, f"{setting} must name who signed it")
    return f"{error.verify_message.rstrip('.')}; {remedy}"
