"""What the Grafana board shows: its rows of panels, and what each asks of Prometheus."""

from typing import NamedTuple

_OF_CHOSEN = 'collection=~"$collection"'


class Panel(NamedTuple):
    """What is asked, each with its legend. `of` says how many of them fill a row."""

    title: str
    unit: str
    asks: tuple[tuple[str, str], ...]
    of: int = 3
    kind: str = "timeseries"
    help: str = ""


def _rate(metric: str) -> str:
    return f"rate({metric}[$__rate_interval])"


def _quantile(share: float, metric: str, by: str = "") -> str:
    return f"histogram_quantile({share}, sum by (le{', ' + by if by else ''}) ({_rate(metric)}))"


def _spread(metric: str, unit: str, title: str, help_: str = "") -> Panel:
    """How good faces are: one in ten is worse than the lower line."""
    asks = tuple(
        (_quantile(share, f"{metric}_bucket", "pool"), f"{{{{pool}}}} p{share * 100:.0f}") for share in (0.1, 0.5)
    )
    return Panel(title, unit, asks, of=5, help=help_)


def _stat(title: str, unit: str, expression: str, help_: str = "") -> Panel:
    return Panel(title, unit, ((expression, ""),), of=6, kind="stat", help=help_)


_SINCE = "facematch_since_registration_seconds_bucket"
_ANSWERS = "facematch_encoder_answers_total"
_NOT_ENCODED = _ANSWERS + '{outcome=~"rejected|escalated"}'
_CERTIFIED = "max by (collection, encoder, shard) (facematch_certificate_{}{{" + _OF_CHOSEN + "}})"
_HELD = "facematch_gallery_{}{{" + _OF_CHOSEN + "}}"
_EACH = "{{collection}} {{encoder}} {{shard}}"

ROWS: dict[str, tuple[Panel, ...]] = {
    "At a glance": (
        _stat(
            "Registration to Postgres, p95",
            "s",
            f'histogram_quantile(0.95, sum by (le) (rate({_SINCE}{{stage="written"}}[10m])))',
            "Until everyone who looks alike is known, over ten minutes.",
        ),
        _stat("Furthest behind", "s", "max(facematch_lag_seconds)", "Of all consumer groups."),
        _stat("Workers that are not ready", "short", "count(facematch_ready == 0) or vector(0)"),
        _stat(
            "Photos rejected, an hour",
            "percentunit",
            f'sum(increase({_ANSWERS}{{outcome="rejected"}}[1h]))'
            f' / sum(increase({_ANSWERS}{{outcome=~"encoded|rejected"}}[1h]))',
        ),
        _stat("Dead letters, a day", "short", "sum(increase(facematch_dead_letters_total[1d])) or vector(0)"),
        _stat("Least recall of an index", "percentunit", "min(facematch_gallery_recall_ratio)"),
    ),
    "How long it takes, and what waits": (
        Panel(
            "From the registration until it is …",
            "s",
            tuple(
                (_quantile(share, _SINCE, "stage"), f"{{{{stage}}}} p{share * 100:.0f}") for share in (0.5, 0.95, 0.99)
            ),
            help="encoded: its embedding is in Kafka. matched: what was found is in Kafka. written: it is in Postgres.",
        ),
        Panel("Behind, in time", "s", (("max by (group) (facematch_lag_seconds)", "{{group}}"),)),
        Panel("Behind, in messages", "short", (("sum by (group) (facematch_lag_messages)", "{{group}}"),)),
    ),
    "Outbox": (
        Panel("Rows that wait", "short", (("max(facematch_outbox_waiting_rows)", "waiting"),), of=4),
        Panel("Age of the oldest", "s", (("max(facematch_outbox_oldest_age_seconds)", "oldest"),), of=4),
        Panel(
            "Rows a second",
            "short",
            ((f"sum by (outcome) ({_rate('facematch_outbox_rows_total')})", "{{outcome}}"),),
            of=4,
        ),
        Panel("Rows with a problem", "short", (("max(facematch_outbox_marked_rows)", "marked"),), of=4),
    ),
    "Encoder": (
        Panel("Answers a second", "short", ((f"sum by (pool, outcome) ({_rate(_ANSWERS)})", "{{pool}} {{outcome}}"),)),
        Panel(
            "Rejections and escalations a second",
            "short",
            ((f"sum by (pool, reason) ({_rate(_NOT_ENCODED)})", "{{pool}} {{reason}}"),),
        ),
        Panel(
            "Starts of the pools' processes, an hour",
            "short",
            (("sum by (pool) (increase(facematch_encoder_pool_starts_total[1h]))", "{{pool}}"),),
            help="More than the first: a photo has ended a process.",
        ),
        _spread("facematch_face_width_pixels", "short", "Width of faces, pixels"),
        _spread("facematch_face_detector_score", "short", "Detector's score"),
        _spread("facematch_face_sharpness", "short", "Sharpness", "Below 50 a face looks blurred."),
        _spread("facematch_face_brightness", "short", "Brightness", "0 is black, 255 white."),
        _spread("facematch_face_frontality_ratio", "percentunit", "Frontality", "1 is from the front."),
    ),
    "Matcher": (
        Panel("People", "short", ((_HELD.format("people"), _EACH),)),
        Panel(
            "Embeddings not sealed yet",
            "short",
            (
                (_HELD.format("delta_embeddings"), _EACH),
                ("max(facematch_delta_limit_embeddings)", "sealed from here on"),
            ),
        ),
        Panel("Sealed segments", "short", ((_HELD.format("segments"), _EACH),)),
        Panel(
            "Recall, measured",
            "percentunit",
            ((_HELD.format("recall_ratio"), _EACH), ("max(facematch_recall_floor_ratio)", "floor")),
        ),
        Panel(
            "Candidates of a newcomer",
            "short",
            (
                (f"facematch_candidates_per_newcomer{{{_OF_CHOSEN}}}", _EACH),
                (f"facematch_candidates_expected_per_newcomer{{{_OF_CHOSEN}}}", "expected: " + _EACH),
                (f"facematch_candidates_newcomers{{{_OF_CHOSEN}}}", "newcomers counted: " + _EACH),
            ),
            help="On average over the last newcomers. Three times what was expected: a people is served badly.",
        ),
        Panel("Threshold", "short", ((_HELD.format("threshold_distance"), _EACH),)),
        Panel(
            "Pairs of strangers",
            "short",
            (
                (f"max by (collection) (facematch_different_pairs{{{_OF_CHOSEN}}})", "decided {{collection}}"),
                (
                    f"max by (collection, encoder) (facematch_strangers_expected_pairs{{{_OF_CHOSEN}}})",
                    "expected {{collection}} {{encoder}}",
                ),
            ),
            help="decided: reviewers called them different. expected: by the encoder's operating points.",
        ),
        Panel(
            "Events a second",
            "short",
            ((f"sum by (event) ({_rate('facematch_matcher_events_total')})", "{{event}}"),),
        ),
        Panel(
            "Since the compaction that is in use",
            "s",
            ((f"time() - ({_HELD.format('compacted_timestamp_seconds')} > 0)", _EACH),),
        ),
        Panel(
            "Never compacted, since the first embedding",
            "s",
            ((f"time() - ({_HELD.format('begun_timestamp_seconds')} > 0)", _EACH),),
        ),
    ),
    "Compaction": (
        Panel("Since the last certificate", "s", ((f"time() - {_CERTIFIED.format('timestamp_seconds')}", _EACH),)),
        Panel("Recall, certified", "percentunit", ((_CERTIFIED.format("recall_ratio"), _EACH),)),
        Panel(
            "Pairs",
            "short",
            (
                (
                    f"max by (collection, encoder, shard, judged) (facematch_certificate_pairs{{{_OF_CHOSEN}}})",
                    "{{judged}} " + _EACH,
                ),
            ),
            help="found: the matcher had missed them. retracted: they held no longer.",
        ),
        Panel("Duration", "s", ((_CERTIFIED.format("duration_seconds"), _EACH),)),
        Panel(
            "People, and whether it is in service",
            "short",
            ((_CERTIFIED.format("people"), _EACH), (_CERTIFIED.format("in_service"), "in service: " + _EACH)),
        ),
        Panel(
            "Runs at set times, a day",
            "short",
            (
                ("sum by (outcome) (increase(facematch_compactions_total[1d]))", "{{outcome}}"),
                ("(max(facematch_compaction_due_timestamp_seconds) - time()) / 3600", "hours until the next"),
            ),
        ),
    ),
    "Sink and servers": (
        Panel(
            "Events a second",
            "short",
            ((f"sum by (event) ({_rate('facematch_sink_events_total')})", "{{event}}"),),
        ),
        Panel(
            "Postgres, p99",
            "s",
            ((_quantile(0.99, "facematch_postgres_seconds_bucket", "operation"), "{{operation}}"),),
            help="write: a batch of the sink. relay: a round of the outbox.",
        ),
        Panel("Redis, p99", "s", ((_quantile(0.99, "facematch_redis_seconds_bucket", "command"), "{{command}}"),)),
        Panel(
            "Servers asked again, a minute",
            "short",
            (("sum by (server) (increase(facematch_server_retries_total[1m]))", "{{server}}"),),
        ),
        Panel(
            "Dead letters, an hour",
            "short",
            (("sum by (topic) (increase(facematch_dead_letters_total[1h]))", "{{topic}}"),),
        ),
        Panel(
            "Conflicting registrations",
            "short",
            (("max(facematch_conflicting_individuals)", "individuals"),),
            help="Registered with different contents at one revision: `facematch conflicts` lists them.",
        ),
        Panel(
            "Removed unread",
            "short",
            (("sum by (group, topic) (facematch_removed_unread_total)", "{{group}} {{topic}}"),),
            help="By retention, before the group had read them; since the workers' start.",
        ),
        Panel(
            "Set aside",
            "short",
            (("sum by (group, topic) (facematch_set_aside_total)", "{{group}} {{topic}}"),),
            help="Records that the group died of several times, and passes over; since the workers' start.",
        ),
    ),
    "Processes": (
        Panel("Ready", "short", (("facematch_ready", "{{worker}} {{instance}}"),), of=4),
        Panel(
            "Since the loop moved",
            "s",
            (("facematch_loop_silent_seconds", "{{worker}} {{instance}}"),),
            of=4,
            help="A few seconds; beyond 300 the worker hangs.",
        ),
        Panel(
            "Memory",
            "bytes",
            (("process_resident_memory_bytes and on (job, instance) facematch_ready", "{{instance}}"),),
            of=4,
            help="Without the processes of the encoder pools.",
        ),
        Panel(
            "Since the start",
            "s",
            (("time() - process_start_time_seconds and on (job, instance) facematch_ready", "{{instance}}"),),
            of=4,
        ),
    ),
}
