"""The pairs that hold, from the topic `duplicates` alone. The rules: docs/using.md.

pip install confluent-kafka && python duplicates.py 127.0.0.1:9092 facematch [--once: print the pairs at the end, stop]
"""

import json
import sys
from datetime import datetime
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

servers, topic, once = sys.argv[1], f"{sys.argv[2]}.duplicates", "--once" in sys.argv
# The client asks for a group's name, but partitions are assigned and no offset is committed.
config = {"bootstrap.servers": servers, "group.id": "none", "enable.auto.commit": False, "enable.partition.eof": True}
consumer = Consumer(config)
unread = set(consumer.list_topics(topic, 30).topics[topic].partitions)
consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in unread])
latest: dict[str, tuple[int, datetime, str, Any]] = {}  # what counts under each key: revisions, time, kind, event
while unread or not once:
    message: Any = consumer.poll()
    if message.error() is None:
        key, value, headers = message.key().decode(), message.value(), dict(message.headers())
        kind, time = headers["ce_type"].decode(), datetime.fromisoformat(headers["ce_time"].decode())
        if value is None:  # someone was erased: forget
            latest.pop(key, None)
        elif kind in ("DuplicateFound", "DuplicateRetracted", "IndividualChecked"):
            event = json.loads(value)
            revisions = event["revision"] if "revision" in event else event["a"]["revision"] + event["b"]["revision"]
            if key not in latest or (revisions, time) > latest[key][:2]:
                latest[key] = (revisions, time, kind, event)
        if not once:
            print(kind, key, latest.get(key), flush=True)
    elif message.error().code() == KafkaError._PARTITION_EOF:
        unread.discard(message.partition())
    else:
        raise KafkaException(message.error())
found = [(event["collection"], key, event) for key, (*_, kind, event) in latest.items() if kind == "DuplicateFound"]
for collection, key, event in sorted(found):
    print(collection, key, event["a"]["individual_id"], event["b"]["individual_id"], event["distance"], sep="\t")
