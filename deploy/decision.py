"""`facematch decide`: publishes a reviewer's verdict on a pair."""

from sqlalchemy import select, union

from runtime.servers.postgres import postgres_engine
from runtime.servers.publisher import Publisher
from schemas.envelope import Source, announce, encode
from schemas.events.pairs import PairDecided
from schemas.faults import UserFault
from schemas.settings import Settings
from schemas.tables import decisions, duplicates


class UnknownPairError(UserFault):
    """No pair with that id is known."""


def decide(settings: Settings, pair_id: str, verdict: str, by: str, note: str) -> PairDecided:
    """Publish a decision on a pair that is, or was, in the tables; returns once Kafka has acknowledged it.

    Raises UnknownPairError; ValidationError where a text is too long.
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
        raise UnknownPairError(f"no pair {pair_id} was ever found; `facematch duplicates` shows their ids")
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
    Publisher(settings, "decide").publish_all([encode(announce(event, Source.DECIDE))])
    return event
