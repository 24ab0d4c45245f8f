"""Which database a namespace on Kafka writes to. Both know it, so that no second deployment takes its records away."""

from sqlalchemy import select

from deploy.setup.waiting import wait_while
from runtime.servers.deployment import DATABASE, read_notes, write_note
from runtime.servers.postgres import postgres_engine, postgres_url
from schemas.faults import UserFault
from schemas.settings import Settings
from schemas.tables import deployment

_CLIENT = "setup"


class OtherDatabaseError(UserFault):
    """The namespace on this Kafka belongs to another database. The text says what to do."""


def claim_namespace(settings: Settings, new_database: bool = False) -> None:
    """Have Kafka note the id of this database, where it has noted none, or with `new_database`.

    Raises OtherDatabaseError where it has noted another.
    """
    ours, noted = _id_of_database(settings), read_notes(settings, _CLIENT).get(DATABASE)
    if noted is None or (new_database and noted != ours):
        write_note(settings, _CLIENT, DATABASE, ours)
        noted = read_notes(settings, _CLIENT).get(
            DATABASE
        )  # another may have done so at the same time: the last counts
    _compare(settings, ours, noted)


def wait_for_claim(settings: Settings, client: str) -> None:
    """Wait, with growing pauses, until Kafka has noted a database. Raises OtherDatabaseError where it is another.

    `client` begins with the name of a consumer group whose user asks: Kafka lets nobody else read by it.
    """

    def missing() -> str:
        noted = read_notes(settings, client).get(DATABASE)
        if noted is not None:
            _compare(settings, _id_of_database(settings), noted)
        return "" if noted else "`facematch setup` has not noted on Kafka which database the namespace belongs to"

    wait_while(missing)


def _id_of_database(settings: Settings) -> str:
    engine = postgres_engine(settings)
    with engine.connect() as connection:
        found = connection.scalars(select(deployment.c.database_id)).one()
    engine.dispose()
    return str(found)


def _compare(settings: Settings, ours: str, noted: str | None) -> None:
    if noted != ours:
        url = postgres_url(settings)
        raise OtherDatabaseError(
            f"namespace {settings.namespace} on this Kafka belongs to another database ({noted}) than {url.database} "
            f"at {url.host} ({ours}): two deployments would take each other's records. Give this one another "
            "FACEMATCH_NAMESPACE; or, where its database takes the place of one that is gone, `facematch setup "
            "--new-database`"
        )
