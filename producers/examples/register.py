"""Registers an individual. Exits with status 0 only if Kafka has acknowledged it.

pip install confluent-kafka && python register.py 127.0.0.1:9092 facematch camp-a A-1001 1 https://example.org/1.jpg
"""

import json
import sys
import uuid
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import KafkaError, Producer

servers, namespace, collection, individual_id, revision, photo = sys.argv[1:]
outcome: list[KafkaError | None] = []
config = {
    "bootstrap.servers": servers,
    "enable.idempotence": True,
    "acks": "all",
    "partitioner": "murmur2_random",  # as Java's clients do it: all records of an individual are in one partition
    "message.timeout.ms": 60_000,
}
headers: dict[str, Any] = {
    "ce_specversion": "1.0",
    "ce_type": "IndividualCreated",
    "ce_id": str(uuid.uuid4()),
    "ce_source": f"registration/{collection}",
    "ce_time": datetime.now(UTC).isoformat(),
}
event = {
    "collection": collection,
    "individual_id": individual_id,
    "revision": int(revision),
    "photo": {"uri": photo},
}
producer = Producer(config)
producer.produce(
    f"{namespace}.individuals",
    json.dumps(event),
    f"{collection}/{individual_id}",
    headers=headers,
    on_delivery=lambda error, _: outcome.append(error),
)
producer.flush()
(error,) = outcome
sys.exit(None if error is None else f"not acknowledged: {error.str()}")
