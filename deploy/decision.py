"""`facematch decide`: what a reviewer says of a pair, as an event."""

from sqlalchemy import select, union

from runtime.servers.postgres import postgres_engine
from runtime.servers.publisher import Publisher
from schemas.envelope import announce, encode
from schemas.events.pairs import PairDecided
from schemas.settings import Settings
from schemas.tables import decisions, duplicates

SOURCE = "facematch/decide"


class UnknownPairError(Exception):
    """No pair of that id is known."""


def decide(settings: Settings, pair_id: str, verdict: str, by: str, note: str) -> PairDecided:
    """Publish a decision on a pair that is, or was, known; returns once Kafka has it. Raises UnknownPairError.

    Raises ValidationError where a text is too long. Of a pair that nobody has found yet, publish the event itself.
    """
    known = [
        select(table.c.collection, table.c.encoder, table.c.individual_a, table.c.individual_b).where(
            table.c.pair_id == pair_id
        )
        for table in (duplicates, decisions)
    ]
    engine = postgres_engine(settings)
    with engine.connect() as connection:
        pair = connection.execute(union(*known)).first()
    engine.dispose()
    if pair is None:
        raise UnknownPairError
    event = PairDecided.model_validate(
        {
            "collection": pair.collection,
            "encoder": pair.encoder,
            "a": pair.individual_a,
            "b": pair.individual_b,
            "verdict": verdict,
            "by": by,
            "note": note,
        }
    )
    Publisher(settings, "decide").publish_all([encode(announce(event, SOURCE))])
    return event
