"""All that `facematch setup` sets up."""

from deploy.setup.database import claim_namespace
from deploy.setup.encoder import choose_encoder
from deploy.setup.tables import create_tables
from deploy.setup.topics import create_topics
from schemas.settings import Settings


def set_up(settings: Settings, configure: bool = False, new_database: bool = False, encoder: str | None = None) -> str:
    """Create topics and tables that are missing, have each know the other, and note the encoder, which is returned.

    Raises WrongTopicsError, OtherDatabaseError, what `choose_encoder` raises, and what the clients raise where a server
    is away.
    """
    create_topics(settings, configure)
    create_tables(settings)
    claim_namespace(settings, new_database)
    return choose_encoder(settings, encoder)
