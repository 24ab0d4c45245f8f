"""How Faust's client gets to the broker: the same settings as librdkafka's, in `schemas.kafka`."""

import ssl

from faust import SASLCredentials, SSLCredentials
from faust.types.auth import CredentialsT

from runtime.servers.kafka import SASL_MECHANISM
from schemas.settings import Settings


def credentials(settings: Settings) -> CredentialsT | None:
    """None where the broker asks for neither TLS nor a password."""
    tls = ssl.create_default_context(cafile=settings.kafka_ca) if settings.kafka_tls else None
    if settings.kafka_user is not None and settings.kafka_password is not None:
        return SASLCredentials(
            username=settings.kafka_user,
            password=settings.kafka_password.get_secret_value(),
            ssl_context=tls,
            mechanism=SASL_MECHANISM,
        )
    return SSLCredentials(tls) if tls else None
