"""Writes the contracts as files that other languages read: JSON Schemas, examples, an AsyncAPI 3 document.

`make generate` writes them; a test fails when they are stale.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from schemas.envelope import LONGEST, Message, Record, encode, full_name
from schemas.events.base import Detector, Event, Member
from schemas.events.certificates import CompactionCertified, IndexParameters, MeasuredRecall, PairCounts
from schemas.events.encodings import (
    EMBEDDING_DIMENSIONS,
    EncodingComputed,
    EncodingErased,
    EncodingRejected,
    FaceBox,
    Quality,
    RejectionReason,
)
from schemas.events.pairs import (
    DecisionErased,
    DuplicateFound,
    DuplicateRetracted,
    FindingErased,
    IndividualChecked,
    PairDecided,
    RetractionReason,
)
from schemas.events.registrations import (
    IndividualCreated,
    IndividualDeleted,
    IndividualErased,
    IndividualUpdated,
    Photo,
)
from schemas.topics import EVENT_TYPES, TOPICS, Topic, topic_of

FOLDER = Path(__file__).parent
_TIME = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
_ID = "7d9f2f0e-5d4b-4b8e-9d53-0d6f1c1f3a11"
_WHO = {"collection": "camp-a", "individual_id": "A-1001", "revision": 1}
_PAIR = {
    "collection": "camp-a",
    "encoder": "dlib-resnet-v1-db0eeebc.1",
    "a": Member(individual_id="A-1001", revision=1),
    "b": Member(individual_id="A-2417", revision=3),
}


def examples() -> dict[str, Record]:
    """One record for each type of event."""
    events: tuple[Event, ...] = (
        IndividualCreated(
            **_WHO, photo=Photo(uri="file:///srv/photos/A-1001.jpg"), attributes={"household": "H-77"}
        ),
        IndividualUpdated(
            **_WHO | {"revision": 2}, photo=Photo(uri="https://photos.example.org/A-1001-2.jpg"), detector=Detector.CNN
        ),
        IndividualDeleted(**_WHO | {"revision": 3}),
        IndividualErased(collection="camp-a", digest="5f" * 32, key_id="1b0c7a52", revision=3),
        EncodingComputed(
            **_WHO,
            encoder="dlib-resnet-v1-db0eeebc.1",
            embedding=np.linspace(-0.2, 0.2, EMBEDDING_DIMENSIONS, dtype=np.float32),
            face=FaceBox(top=142, right=617, bottom=409, left=349),
            detector=Detector.HOG,
            quality=Quality(
                face_pixels=268, detector_score=1.62, sharpness=412.5, brightness=118.2, frontality=0.91
            ),
        ),
        EncodingErased(**_WHO | {"revision": 3}),
        EncodingRejected(
            **_WHO,
            reason=RejectionReason.NO_FACE,
            detail="no face was found: take the photo again from the front, in good light, without a mask; in this "
            "one a face must be at least 50 pixels wide",
            event_id=_ID,
        ),
        DuplicateFound(**_PAIR, distance=0.346, threshold=0.45),
        DuplicateRetracted(**_PAIR, reason=RetractionReason.UPDATED, distance=0.346, threshold=0.45),
        IndividualChecked(**_WHO, encoder="dlib-resnet-v1-db0eeebc.1", duplicates=1),
        PairDecided(
            collection="camp-a", encoder="dlib-resnet-v1-db0eeebc.1", a="A-1001", b="A-2417",
            verdict="different", by="reviewer-7", note="twins",
        ),
        FindingErased(collection="camp-a", erased_key=DuplicateFound(**_PAIR, distance=0, threshold=0.45).pair_id),
        DecisionErased(collection="camp-a", erased_key=DuplicateFound(**_PAIR, distance=0, threshold=0.45).pair_id),
        CompactionCertified(
            certificate_id=_ID, collection="camp-a", encoder="dlib-resnet-v1-db0eeebc.1", partition=4, offset=41230,
            people=39817, threshold=0.45, index=IndexParameters(m=16, ef_construction=100, ef=64),
            recall=MeasuredRecall(recall=0.9994, low=0.9987, high=0.9998, people=3981, pairs=6120, floor=0.999),
            pairs=PairCounts(kept=61093, found=4, retracted=17), checked=0, in_service=True, checksum="5f" * 32,
            began_at=_TIME, seconds={"reading": 0.9, "building": 14.2, "comparing": 11.8}, memory_mb=412.6,
        ),
    )  # fmt: skip
    return {
        type(event).__name__: encode(Message(event, id=_ID, time=_TIME, source="example/registration"))
        for event in events
    }


def files() -> dict[Path, str]:
    """Every generated file and its content."""
    content: dict[Path, Any] = {FOLDER / "asyncapi.json": asyncapi()}
    for name, record in examples().items():
        content[FOLDER / "json" / f"{name}.schema.json"] = json_schema(EVENT_TYPES[name])
        content[FOLDER / "examples" / f"{name}.json"] = _as_json(record)
    return {path: json.dumps(data, indent=2, ensure_ascii=False) + "\n" for path, data in content.items()}


def json_schema(event: type[Event]) -> dict[str, Any]:
    """The JSON Schema (2020-12) of an event's value."""
    if event.NULL_HEADERS:
        schema: dict[str, Any] = {"title": event.__name__, "description": event.__doc__, "type": "null"}
    else:
        schema = event.model_json_schema()
    identity = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"urn:facematch:{event.__name__}"}
    return {**identity, **schema}


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0 document: topics as channels, events as messages."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "facematch",
            "version": "1.0.0",
            "description": "Finds the same person registered twice. Topic names are preceded by the namespace and a "
            "dot, for example facematch.individuals. Events are CloudEvents 1.0 in Kafka's binary mode.",
        },
        "channels": {topic.name: _channel(topic) for topic in TOPICS},
        "operations": {
            "register": _operation("send", "individuals", "A registration system publishes who was registered."),
            "decide": _operation("send", "decisions", "A review tool publishes what a reviewer decided."),
            "readDuplicates": _operation("receive", "duplicates", "Downstream reads the candidates."),
            "readCertificates": _operation("receive", "certificates", "Downstream reads what each compaction found."),
            "readErasures": _operation("receive", "erasures", "Whoever holds the key learns who was erased."),
            "readRejections": _operation("receive", "rejections", "Downstream reads which photos to take again."),
        },
        "components": {"messages": {name: _message(name) for name in EVENT_TYPES}},
    }


def _channel(topic: Topic[Event]) -> dict[str, Any]:
    names = [event.__name__ for event in topic.carries]
    return {
        "address": full_name(topic.name, "{namespace}"),
        "title": topic.name,
        "parameters": {"namespace": {"description": "FACEMATCH_NAMESPACE of the deployment.", "default": "facematch"}},
        "description": f"{topic.purpose}. Key: {topic.key}.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {"kafka": {"bindingVersion": "0.5.0", "partitions": topic.partitions}},
        "x-kafka-config": topic.config,
        "x-partitioned-by": "collection" if topic.partitioned_by_collection else "key",
    }


def _operation(action: str, topic: str, summary: str) -> dict[str, Any]:
    return {"action": action, "channel": {"$ref": f"#/channels/{topic}"}, "summary": summary}


def _message(name: str) -> dict[str, Any]:
    event = EVENT_TYPES[name]
    headers: dict[str, Any] = {
        "ce_specversion": {"const": "1.0"},
        "ce_type": {"const": name},
        "ce_id": {"type": "string", "maxLength": LONGEST["ce_id"], "description": "unique with ce_source"},
        "ce_source": {"type": "string", "maxLength": LONGEST["ce_source"], "description": "who published it"},
        "ce_time": {
            "type": "string",
            "format": "date-time",
            "description": "when the individual was registered; of an event of compaction, when it was published; "
            "one later than Kafka had the record counts as that",
        },
    }
    headers |= event.NULL_HEADERS
    return {
        "name": name,
        "title": name,
        "contentType": "application/json",
        "description": event.__doc__,
        "headers": {"type": "object", "required": list(headers), "properties": headers},
        "payload": {
            "schemaFormat": "application/schema+json;version=draft-2020-12",
            "schema": {"$ref": f"./json/{name}.schema.json"},
        },
        "x-topic": topic_of(event).name,
    }


def _as_json(record: Record) -> dict[str, Any]:
    return {
        "topic": record.topic,
        "key": (record.key or b"").decode(),
        "headers": {name: (value or b"").decode() for name, value in record.headers},
        "value": None if record.value is None else json.loads(record.value),
    }


if __name__ == "__main__":
    for path, text in files().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
