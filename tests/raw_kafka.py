"""Records as no client of ours would send them, by Kafka's wire protocol: https://kafka.apache.org/protocol"""

import socket
import struct
import time
from collections.abc import Sequence

from aiokafka.record.util import calc_crc32c_py

RawHeaders = Sequence[tuple[bytes, bytes | None]]


def send_raw(address: str, topic: str, partition: int, key: bytes, value: bytes, headers: RawHeaders) -> int:
    """Produce one record, whose names of headers are any bytes. `topic` is the broker's name. Returns its offset."""
    body = b"\0" + _varint(0) + _varint(0) + _sized(key) + _sized(value) + _varint(len(headers))
    body += b"".join(_sized(name) + _sized(content) for name, content in headers)
    now = int(time.time() * 1000)
    after = struct.pack(">hiqqqhii", 0, 0, now, now, -1, -1, -1, 1) + _sized(body)
    batch = struct.pack(">qiibI", 0, len(after) + 9, -1, 2, calc_crc32c_py(after)) + after
    name = struct.pack(">h", len(topic)) + topic.encode()
    produce = struct.pack(">hhih", 0, 7, 1, -1)  # version 7, no client id
    produce += struct.pack(">hhii", -1, -1, 10_000, 1) + name + struct.pack(">iii", 1, partition, len(batch)) + batch
    host, _, port = address.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(struct.pack(">i", len(produce)) + produce)
        answer = connection.makefile("rb")
        (size,) = struct.unpack(">i", answer.read(4))
        _, error, offset = struct.unpack_from(">ihq", answer.read(size), 4 + 4 + len(name) + 4)
    assert error == 0, f"Kafka's error {error}"
    return int(offset)


def _varint(number: int) -> bytes:
    number, out = (number << 1) ^ (number >> 63), bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _sized(content: bytes | None) -> bytes:
    return _varint(-1) if content is None else _varint(len(content)) + content
