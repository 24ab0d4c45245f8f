"""All metrics of the workers, in Prometheus' units and names.

Labels have few values: never an individual's. Collections and encoders are labels of the galleries: of the largest, and
`(others)`.
https://prometheus.io/docs/practices/naming/
"""

import collections
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import accumulate

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

Series = Mapping[tuple[str, ...], float]
_GALLERY = ("collection", "encoder", "shard")
_PLACE = ("group", "topic", "partition")
# A second is what is promised: fine around it.
_STAGE_S = (0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 86_400)
_SERVER_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


def _nothing() -> Series:
    return {}


class CallbackGauge(Collector):
    """A gauge whose series come and go: `source` returns them at each scrape. A gauge without a source has none."""

    def __init__(self, name: str, documentation: str, labels: tuple[str, ...] = ()) -> None:
        self.source: Callable[[], Series] = _nothing
        self.labels = labels
        self.name, self._documentation = name, documentation
        REGISTRY.register(self)

    def set(self, value: float) -> None:
        """Set the value of a gauge without labels."""
        self.source = lambda: {(): value}

    def describe(self) -> Iterable[Metric]:
        """The gauge without series, for the registry."""
        return [GaugeMetricFamily(self.name, self._documentation, labels=self.labels)]

    def collect(self) -> Iterable[Metric]:
        """The gauge as it is now."""
        family = GaugeMetricFamily(self.name, self._documentation, labels=self.labels)
        for values, value in self.source().items():
            family.add_metric(values, value)
        return [family]


class ManyHistogram(Collector):
    """A histogram with one label that takes many values at once, for every message. Thread-safe.

    prometheus_client's takes them one by one, under two locks each: over 1 % of the matcher's time.
    """

    def __init__(self, name: str, documentation: str, label: str, bounds: Sequence[float]) -> None:
        self.name, self.label = name, label
        self._documentation, self._bounds = documentation, bounds
        self._counts: dict[str, collections.Counter[int]] = {}  # by the bucket's number
        self._sums: dict[str, float] = {}
        self._lock = threading.Lock()
        REGISTRY.register(self)

    def observe(self, value_of_label: str, values: Sequence[float]) -> None:
        """Add values to the series of one label."""
        counts = collections.Counter(map(partial(bisect_left, self._bounds), values))
        with self._lock:
            self._counts.setdefault(value_of_label, collections.Counter()).update(counts)
            self._sums[value_of_label] = self._sums.get(value_of_label, 0) + sum(values)

    def describe(self) -> Iterable[Metric]:
        """The histogram without series, for the registry."""
        return [HistogramMetricFamily(self.name, self._documentation, labels=[self.label])]

    def collect(self) -> Iterable[Metric]:
        """The histogram as it is now."""
        family = HistogramMetricFamily(self.name, self._documentation, labels=[self.label])
        bounds = [*map(floatToGoString, self._bounds), "+Inf"]
        with self._lock:
            for value, counts in self._counts.items():
                heaped = accumulate(counts[number] for number in range(len(bounds)))
                family.add_metric([value], list(zip(bounds, heaped, strict=True)), self._sums[value])
        return [family]


# Every worker

READY = Gauge(
    "facematch_ready", "1 where the worker does its work, 0 where it waits for something: see /readyz.", ["worker"]
)
LOOP_SILENT_S = Gauge(
    "facematch_loop_silent_seconds",
    "Since the worker's loop last moved, or was seen waiting for a server. Beyond 300, /healthz answers that it hangs.",
    ["worker"],
)
SERVER_RETRIES = Counter(
    "facematch_server_retries_total",
    "Times that a server did not answer and was asked again: kafka, redis or postgres.",
    ["server"],
)
LAG_MESSAGES = CallbackGauge(
    "facematch_lag_messages", "Messages in a partition that this worker has not processed yet.", _PLACE
)
LAG_S = CallbackGauge(
    "facematch_lag_seconds",
    "How long the oldest message that is not processed yet has waited in Kafka, at most; 0 where all are processed.",
    _PLACE,
)
SINCE_REGISTRATION_S = ManyHistogram(
    "facematch_since_registration_seconds",
    "From the registration (ce_time) until Kafka has the embedding (encoded), until Kafka has what the comparison "
    "found (matched), until Postgres has that somebody was compared (written). Without what was replayed.",
    "stage",
    _STAGE_S,
)
DEAD_LETTERS = Counter(
    "facematch_dead_letters_total", "Messages that could not be read, by the topic that they stood on.", ["topic"]
)
REMOVED = Counter(
    "facematch_removed_unread_total",
    "Records that Kafka removed, by a topic's retention, before the group had read them.",
    ["group", "topic"],
)
SET_ASIDE = Counter(
    "facematch_set_aside_total",
    "Records that a reader died of several times, and passes over from then on.",
    ["group", "topic"],
)
REDIS_S = Histogram(
    "facematch_redis_seconds",
    "Duration of commands to Redis, waiting for one that is away included.",
    ["command"],
    buckets=_SERVER_S,
)
POSTGRES_S = Histogram(
    "facematch_postgres_seconds",
    "Duration of transactions: write (a batch of the sink), relay (a round of the outbox, until Kafka has it).",
    ["operation"],
    buckets=_SERVER_S,
)

# The encoder pools

ANSWERS = Counter(
    "facematch_encoder_answers_total",
    "Answers to events about individuals that Kafka has acknowledged. outcome: encoded, escalated, rejected, erased or "
    "dead_letter; reason: of an escalation or a rejection.",
    ["pool", "outcome", "reason"],
)
QUALITY = {
    "face_pixels": Histogram(
        "facematch_face_width_pixels",
        "Width of encoded faces in the photo as it was sent.",
        ["pool"],
        buckets=(20, 40, 60, 80, 120, 160, 240, 320, 480, 640, 960, 1280),
    ),
    "detector_score": Histogram(
        "facematch_face_detector_score",
        "How sure the detector is of encoded faces: HOG 1 to 3 of a clear frontal face, CNN about 1.",
        ["pool"],
        buckets=(0, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.25, 1.5, 2, 2.5, 3),
    ),
    "sharpness": Histogram(
        "facematch_face_sharpness",
        "Sharpness of encoded faces, the variance of the Laplacian: below 50 one looks blurred.",
        ["pool"],
        buckets=(10, 25, 50, 75, 100, 150, 250, 500, 1000, 2000),
    ),
    "brightness": Histogram(
        "facematch_face_brightness",
        "Mean grey of encoded faces: 0 is black, 255 white.",
        ["pool"],
        buckets=(20, 40, 60, 80, 100, 120, 140, 160, 180, 200, 220, 255),
    ),
    "frontality": Histogram(
        "facematch_face_frontality_ratio",
        "How frontal encoded faces are: 1 from the front, 0 where the nose stands below one of the eyes.",
        ["pool"],
        buckets=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1),
    ),
}
POOL_STARTS = Counter(
    "facematch_encoder_pool_starts_total",
    "Times that processes of the pool were started: all of them once, and one more whenever a photo has ended one.",
    ["pool"],
)

# The matcher

MATCHER_EVENTS = Counter(
    "facematch_matcher_events_total",
    "Events that the matcher has published: DuplicateFound, DuplicateRetracted, IndividualChecked.",
    ["event"],
)
GALLERY_PEOPLE = CallbackGauge("facematch_gallery_people", "People with an embedding that the matcher holds.", _GALLERY)
GALLERY_DELTA = CallbackGauge(
    "facematch_gallery_delta_embeddings", "Embeddings that are searched exactly, until they are sealed.", _GALLERY
)
GALLERY_SEGMENTS = CallbackGauge("facematch_gallery_segments", "Sealed segments, each an HNSW index.", _GALLERY)
GALLERY_RECALL = CallbackGauge(
    "facematch_gallery_recall_ratio",
    "Share of pairs that the sealed segments find, the least of them, as measured when it was sealed.",
    _GALLERY,
)
GALLERY_COMPACTED = CallbackGauge(
    "facematch_gallery_compacted_timestamp_seconds",
    "When the compaction was made whose index the matcher uses; 0 where none has been.",
    _GALLERY,
)
GALLERY_BEGUN = CallbackGauge(
    "facematch_gallery_begun_timestamp_seconds",
    "When Kafka had the first embedding of a gallery that was never compacted, restarts or not; 0 where it was.",
    _GALLERY,
)
GALLERY_THRESHOLD = CallbackGauge(
    "facematch_gallery_threshold_distance", "The threshold in force: embeddings at most this far apart.", _GALLERY
)
CANDIDATES = CallbackGauge(
    "facematch_candidates_per_newcomer",
    "How many candidates the last 500 to 1,000 newcomers had on average; of a shard, in its share.",
    _GALLERY,
)
CANDIDATES_EXPECTED = CallbackGauge(
    "facematch_candidates_expected_per_newcomer",
    "How many they should have had at most: the review budget, or what the encoder's operating points say.",
    _GALLERY,
)
CANDIDATES_NEWCOMERS = CallbackGauge(
    "facematch_candidates_newcomers", "Of how many newcomers the candidates are counted.", _GALLERY
)
STRANGERS_EXPECTED = CallbackGauge(
    "facematch_strangers_expected_pairs",
    "Pairs of strangers that are expected within the threshold in the whole collection, by the operating points.",
    _GALLERY,
)
RECALL_FLOOR = CallbackGauge("facematch_recall_floor_ratio", "FACEMATCH_RECALL_FLOOR of this matcher.")
DELTA_LIMIT = CallbackGauge("facematch_delta_limit_embeddings", "FACEMATCH_DELTA_LIMIT of this matcher.")

# The sink

SINK_EVENTS = Counter("facematch_sink_events_total", "Events that the sink has written to Postgres.", ["event"])
CONFLICTING = CallbackGauge(
    "facematch_conflicting_individuals",
    "Individuals who were registered with different contents at their latest revision: a mistake of the producer.",
)
DIFFERENT_PAIRS = CallbackGauge(
    "facematch_different_pairs", "Pairs that reviewers decided to be two people.", ("collection",)
)
CERTIFICATE_TIME = CallbackGauge(
    "facematch_certificate_timestamp_seconds", "When the last compaction was certified.", _GALLERY
)
CERTIFICATE_PEOPLE = CallbackGauge(
    "facematch_certificate_people", "People in the index of the last compaction.", _GALLERY
)
CERTIFICATE_RECALL = CallbackGauge(
    "facematch_certificate_recall_ratio", "Share of pairs that the index of the last compaction finds.", _GALLERY
)
CERTIFICATE_IN_SERVICE = CallbackGauge(
    "facematch_certificate_in_service",
    "1 where matchers were handed the index of the last compaction, else 0.",
    _GALLERY,
)
CERTIFICATE_DURATION_S = CallbackGauge(
    "facematch_certificate_duration_seconds", "How long the last compaction took.", _GALLERY
)
CERTIFICATE_PAIRS = CallbackGauge(
    "facematch_certificate_pairs",
    "Pairs that the last compaction judged. judged: kept, found (missed before) or retracted.",
    (*_GALLERY, "judged"),
)

# The outbox's relay

OUTBOX_WAITING = CallbackGauge("facematch_outbox_waiting_rows", "Rows that wait to be published.")
OUTBOX_MARKED = CallbackGauge(
    "facematch_outbox_marked_rows", "Rows that cannot be published, with what is wrong beside them."
)
OUTBOX_OLDEST_S = CallbackGauge(
    "facematch_outbox_oldest_age_seconds", "Since the oldest row that waits was written; 0 where none waits."
)
OUTBOX_ROWS = Counter(
    "facematch_outbox_rows_total", "Rows that the relay has published, or marked with a problem.", ["outcome"]
)

# The worker that compacts at set times

COMPACTIONS = Counter(
    "facematch_compactions_total", "Compactions that this worker has run. outcome: done, failed or killed.", ["outcome"]
)
COMPACTION_NEXT = CallbackGauge("facematch_compaction_due_timestamp_seconds", "When the next compaction is due.")
