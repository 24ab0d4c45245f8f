"""`make bench-outbox`: how fast a relay drains an outbox. Prints a Markdown table.

The rows are there before the relay starts. Postgres, Kafka and the relay share the machine.
"""

import statistics

from sqlalchemy import text

from producers.outbox.table import create_outbox
from schemas.topics import INDIVIDUALS
from tests.bench.machine import begin_benchmark, print_table, report, sized
from tests.integration.world import World, running_servers

ROWS, REPEATS = sized((100_000, 3), (2000, 1))
_FILL = text("""
    INSERT INTO facematch_outbox (type, event)
    SELECT 'IndividualUpdated', jsonb_build_object(
        'collection', 'c', 'individual_id', 'A-' || n % 20000, 'revision', n / 20000 + 1,
        'photo', jsonb_build_object('uri', 'https://photos.example.org/A-' || n || '.jpg'),
        'attributes', jsonb_build_object('household', 'H-' || n % 4000, 'site', 'site ' || n % 7))
    FROM generate_series(0, :rows - 1) AS n
""")


def rows_per_second(world: World) -> float:
    """Rows a second of one relay that finds them waiting, by the times at which Kafka had them."""
    create_outbox(world.settings)
    with world.engine.begin() as connection:
        connection.execute(_FILL, {"rows": ROWS})
    world.start("outbox")
    world.wait(lambda: _is_empty(world), "the outbox is empty", limit_s=300)
    world.stop()
    times = sorted(record.timestamp for record in world.read(INDIVIDUALS))
    assert len(times) == ROWS
    skipped = ROWS // 20  # until it is warm
    return (ROWS - skipped) / ((times[-1] - times[skipped]) / 1000)


def _is_empty(world: World) -> bool:
    with world.connect() as connection:
        return not connection.scalar(text("SELECT EXISTS (SELECT FROM facematch_outbox)"))


def run() -> None:
    """Each repetition in a database and topics of its own."""
    begin_benchmark()
    with running_servers(report) as (stack, lines, folder):
        rates = [rows_per_second(World(stack, lines, folder / "data")) for _ in range(REPEATS)]
    rows = [(str(number), f"{rate:.0f}") for number, rate in enumerate(rates, 1)]
    print_table((f"{ROWS:,} rows", "rows/s"), [*rows, ("median", f"{statistics.median(rates):.0f}")])


if __name__ == "__main__":
    run()
