"""Photos through a CPU pool, from Kafka to Kafka."""

import time
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition

from deploy.local.stack import Stack
from deploy.setup.everything import set_up
from runtime.photo_roots import allow
from runtime.servers.kafka import consumer_config
from runtime.servers.publisher import Publisher
from schemas.encoders.known import FACE_RECOGNITION
from schemas.envelope import announce, encode, full_name
from schemas.events.registrations import IndividualCreated, Photo
from schemas.settings import Settings
from schemas.topics import ENCODINGS, partition_of


def photos_per_second(stack: Stack, folder: Path, data: bytes, count: int) -> tuple[float, float]:
    """Photos a second of a worker of the CPU pool that finds them waiting, and seconds from its start to the first."""
    folder.mkdir()
    photo = folder / "photo.jpg"
    photo.write_bytes(data)
    env = {"FACEMATCH_NAMESPACE": folder.name, "FACEMATCH_DATA_FOLDER": str(folder)}
    settings = Settings(
        namespace=folder.name,
        data_folder=folder,
        kafka=stack.addresses["FACEMATCH_KAFKA"],
        redis=stack.addresses["FACEMATCH_REDIS"],
        postgres=stack.addresses["FACEMATCH_POSTGRES"],
    )
    set_up(settings, encoder=FACE_RECOGNITION)
    allow(folder, {folder.resolve().as_uri() + "/"})
    registrations = [
        IndividualCreated(collection="c", individual_id=str(i), revision=1, photo=Photo(uri=photo.resolve().as_uri()))
        for i in range(count)
    ]
    Publisher(settings, "bench").publish_all(encode(announce(event, "bench")) for event in registrations)
    started = time.time()
    worker = stack.start_worker("encode-cpu", env=env)
    try:
        times = _timestamps(settings, count)
    finally:
        worker.stop()
    skipped = count // 20  # the worker is warm, and every process is busy
    rate = (count - 2 * skipped) / ((times[-1 - skipped] - times[skipped]) / 1000)
    return rate, times[0] / 1000 - started


def _timestamps(settings: Settings, count: int) -> list[int]:
    """When Kafka had each answer, in milliseconds, in order. Reads them only when all are there, to take no time."""
    consumer = Consumer(consumer_config(settings, "bench"))
    place = TopicPartition(full_name(ENCODINGS.name, settings.namespace), partition_of("c", ENCODINGS.partitions), 0)
    deadline = time.monotonic() + 300
    while consumer.get_watermark_offsets(place, timeout=10)[1] < count:
        assert time.monotonic() < deadline, f"fewer than {count} encoded"
        time.sleep(0.5)
    consumer.assign([place])
    times: list[int] = []
    while len(times) < count:
        times += [message.timestamp()[1] for message in consumer.consume(500, 1.0) if message.error() is None]
    consumer.close()
    return sorted(times)
