"""What workers say of themselves, scraped on the real servers while they work."""

from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from sqlalchemy import text

from deploy.compaction.run import run_compaction
from deploy.local.ports import free_ports
from deploy.local.stack import WORKERS
from deploy.setup.topics import create_topics
from producers.outbox.table import create_outbox
from schemas.envelope import Record
from schemas.topics import INDIVIDUALS
from streams.compaction.compactor import CompactionPlan
from tests.integration.world import World
from tests.unit.test_board import declared

_OUTBOX_ROW = text("""
    INSERT INTO facematch_outbox (type, event) VALUES ('IndividualCreated', jsonb_build_object(
        'collection', 'c', 'individual_id', 'of the outbox', 'revision', 1, 'photo', jsonb_build_object('uri', :uri)))
""")


class Scraped:
    """Workers of a world, each at an address of its own."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.at: dict[str, str] = {}

    def start(self, *names: str, **env: str) -> None:
        for name, port in zip(names, free_ports(len(names)), strict=True):
            self.at[name] = f"127.0.0.1:{port}"
            own = {**self.world.env, "FACEMATCH_HTTP": self.at[name], **env}
            self.world.workers[name] = self.world.stack.start_worker(name, *WORKERS[name], env=own)

    def get(self, name: str, path: str) -> tuple[int, str]:
        """Status and text; 0 of one that does not listen yet."""
        try:
            with urlopen(f"http://{self.at[name]}{path}", timeout=10) as response:
                return response.status, response.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except (URLError, ConnectionError):
            return 0, ""

    def samples(self, name: str) -> Iterator[tuple[str, dict[str, str], float]]:
        status, scraped = self.get(name, "/metrics")
        assert status == 200
        for family in text_string_to_metric_families(scraped):
            for sample in family.samples:
                yield sample.name, sample.labels, sample.value

    def value(self, of: str, metric: str, **labels: str) -> float:
        """The sum of the samples of a worker that have these labels."""
        return sum(value for name, has, value in self.samples(of) if name == metric and labels.items() <= has.items())


def test_every_worker_says_what_the_board_and_the_alerts_ask_for(world: World, photos: Path) -> None:
    scraped = Scraped(world)
    create_outbox(world.settings)
    scraped.start(*WORKERS)
    world.submit((name, (photos / name).as_uri()) for name in ("obama.jpg", "obama2.jpg", "biden.jpg", "nobody.jpg"))
    world.publish_records([Record(INDIVIDUALS.name, b"c/a", b"unreadable", ())])
    with world.engine.begin() as connection:
        connection.execute(_OUTBOX_ROW, {"uri": (photos / "biden.jpg").as_uri()})
    world.wait(lambda: world.count("checked", "rejected") == 5 and world.settled(), "an answer to each")

    assert scraped.value("encode-cpu", "facematch_encoder_answers_total", outcome="encoded") == 4
    assert scraped.value("encode-cpu", "facematch_encoder_answers_total", reason="photo_not_found") == 1
    assert scraped.value("encode-cpu", "facematch_dead_letters_total", topic="individuals") == 1
    assert scraped.value("encode-cpu", "facematch_since_registration_seconds_count", stage="encoded") == 4
    assert scraped.value("match", "facematch_since_registration_seconds_count", stage="matched") == 4
    assert scraped.value("match", "facematch_matcher_events_total", event="DuplicateFound") == len(world.pairs()) > 0
    assert scraped.value("sink", "facematch_since_registration_seconds_count", stage="written") == 4
    assert scraped.value("outbox", "facematch_outbox_rows_total", outcome="published") == 1
    readers = "encode-cpu", "encode-gpu", "match", "sink"
    world.wait(lambda: not any(scraped.value(one, "facematch_lag_messages") for one in readers), "nothing waits")
    assert not any(scraped.value(one, "facematch_lag_seconds") for one in readers)
    world.wait(lambda: scraped.value("match", "facematch_gallery_delta_embeddings", collection="c") == 4, "four held")

    assert run_compaction(Console(quiet=True), world.settings, CompactionPlan())
    world.wait(lambda: scraped.value("sink", "facematch_certificate_people") == 4, "the certificate is written")
    world.wait(lambda: scraped.value("match", "facematch_gallery_recall_ratio") > 0.9, "the index is in use")
    assert scraped.value("match", "facematch_gallery_delta_embeddings") == 0

    said = {(name, *has) for worker in scraped.at for name, has, _ in scraped.samples(worker)}
    names = {name for name, *_ in said}
    assert set(declared()) - names == set(), "asked for by the board or the alerts, or declared, and never said"
    for worker in scraped.at:
        assert scraped.get(worker, "/healthz")[0] == 200
        assert scraped.get(worker, "/readyz") == (200, "ready\n")


def test_a_worker_is_ready_once_it_has_what_it_waits_for(world: World) -> None:
    scraped = Scraped(world)
    elsewhere = world.settings.model_copy(update={"namespace": f"{world.name}-later"})
    scraped.start("match", FACEMATCH_NAMESPACE=elsewhere.namespace)
    world.wait(lambda: "has not created" in scraped.get("match", "/readyz")[1], "it says that topics are missing")
    assert scraped.get("match", "/readyz")[0] == 503
    assert scraped.get("match", "/healthz")[0] == 200
    assert scraped.value("match", "facematch_ready", worker="matcher") == 0
    create_topics(elsewhere)
    world.wait(lambda: scraped.get("match", "/readyz") == (200, "ready\n"), "it is ready")
    assert scraped.value("match", "facematch_ready", worker="matcher") == 1
