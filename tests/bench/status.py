"""`make bench-status`: how long the queries of `facematch status` and of a page of pairs take. Prints a Markdown table.

A million individuals, a million pairs and 200,000 decisions in 10 collections; the best of 5 of each query, which is
nearest to what a machine without other work takes. Postgres has its own defaults.
"""

import time
from collections.abc import Callable

from sqlalchemy import text
from sqlalchemy.engine import Connection

from consumers.views.individuals import count_conflicting, count_states
from consumers.views.pairs import PairSelection, count_pairs, current_pairs
from tests.bench.machine import begin_benchmark, print_table, report, sized
from tests.integration.world import World, running_servers

PAIRS, DECISIONS, REPEATS = sized((1_000_000, 200_000, 5), (5000, 1000, 1))
_FILL = (
    """INSERT INTO individuals (collection, individual_id, registered_revision, photo, attributes, registered_at,
        encoded_revision, encoder, encoded_at, checked_revision, checked_at)
    SELECT 'camp-' || n % 10, 'A-' || n, 1, 'https://photos.example.org/A-' || n || '.jpg',
        jsonb_build_object('household', 'H-' || n % 4000), now(), 1, 'e', now(),
        CASE WHEN n % 100 > 0 THEN 1 END, now()
    FROM generate_series(1, :pairs) AS n""",
    """INSERT INTO duplicates (pair_id, collection, encoder, individual_a, individual_b, revision_a, revision_b,
        distance, threshold, found_at)
    SELECT gen_random_uuid(), 'camp-' || n % 10, 'e', 'A-' || n, 'B-' || n * 7919 % :pairs, 1, 1, random() * 0.45, 0.45,
        now()
    FROM generate_series(1, :pairs) AS n""",
    """INSERT INTO decisions (pair_id, event_id, collection, encoder, individual_a, individual_b, verdict, decided_by,
        note, decided_at)
    SELECT pair_id, gen_random_uuid()::text, collection, encoder, individual_a, individual_b, 'same', 'R', '', now()
    FROM duplicates ORDER BY pair_id LIMIT :decisions""",
)
_QUERIES: dict[str, Callable[[Connection], object]] = {
    "individuals by state": count_states,
    "conflicting registrations": count_conflicting,
    "pairs to review, and decided": count_pairs,
    "the first 50 pairs to review": lambda connection: current_pairs(connection, PairSelection("camp-3", limit=50)),
}


def fill(world: World) -> None:
    """Write the rows, and let Postgres learn of them, as its autovacuum does."""
    with world.engine.begin() as connection:
        for statement in _FILL:
            connection.execute(text(statement), {"pairs": PAIRS, "decisions": DECISIONS})
            report("filled a table")
    with world.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def best_ms(world: World, query: Callable[[Connection], object]) -> float:
    """The shortest time of a query, in milliseconds."""
    times = []
    for _ in range(REPEATS):
        with world.connect() as connection:
            begun = time.perf_counter()
            query(connection)
            times.append(time.perf_counter() - begun)
    return 1000 * min(times)


def run() -> None:
    """In a database of its own."""
    begin_benchmark()
    with running_servers(report) as (stack, lines, folder):
        world = World(stack, lines, folder / "data")
        fill(world)
        rows = [(name, f"{best_ms(world, query):.0f}") for name, query in _QUERIES.items()]
        world.stop()
    print_table((f"{PAIRS:,} individuals and pairs, {DECISIONS:,} decisions", "ms"), rows)


if __name__ == "__main__":
    run()
