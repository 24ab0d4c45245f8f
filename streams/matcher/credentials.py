"""Faust's credentials for the broker, from the same settings as librdkafka's: see `runtime.servers.kafka`."""

import ssl

from faust import SASLCredentials, SSLCredentials

from runtime.servers.kafka import SASL_MECHANISM
from schemas.settings import Settings


def credentials(settings: Settings) -> SASLCredentials | SSLCredentials | None:
    """The credentials, None where the broker wants neither TLS nor a password."""
    tls = ssl.create_default_context(cafile=settings.kafka_ca) if settings.kafka_tls else None
    if settings.kafka_user is not None and settings.kafka_password is not None:
        return SASLCredentials(
            username=settings.kafka_user,
            password=settings.kafka_password.get_secret_value(),
            ssl_context=tls,
            mechanism=SASL_MECHANISM,
        )
    return SSLCredentials(tls) if tls else None
