"""A roster finds exactly who is in it, and every individual falls to exactly one shard."""

import numpy as np
import pytest
from numpy.typing import NDArray

from schemas.shard import Shard
from streams.gallery.id_table import IdHash, IdTable, hash_of, hashes_of, order_of
from streams.gallery.without_vector import WithoutVector

LARGEST = 2**64 - 1
# Three share the high half, two the low one; the ends of the range are among them.
HASHES = [(0, 0), (5, LARGEST), (7, 1), (7, 2), (7, LARGEST), (9, 2), (LARGEST, 0), (LARGEST, LARGEST)]


def as_array(hashes: list[tuple[int, int]]) -> NDArray[np.uint64]:
    return np.array(hashes, dtype=np.uint64).reshape(-1, 2)


def roster_of(hashes: list[tuple[int, int]]) -> IdTable:
    """In the order given, which is to be ascending; revisions from 1, offsets from 100."""
    numbers = np.arange(len(hashes), dtype=np.int64)
    return IdTable(as_array(hashes), numbers + 1, numbers + 100)


def shared(one: IdTable, other: IdTable) -> set[tuple[int, int]]:
    rows = one.find(other.hashes)
    return {(row, there) for there, row in enumerate(rows.tolist()) if row >= 0}


def test_an_id_is_found_if_and_only_if_it_is_there() -> None:
    there, others = [f"A-{i}" for i in range(2000)], [f"B-{i}" for i in range(2000)]
    hashes = hashes_of(there)
    order = order_of(hashes)
    numbers = np.arange(2000, dtype=np.int64)
    id_table = IdTable(hashes[order], numbers[order], numbers[order])
    rows = [id_table.row_of(hash_of(name)) for name in there]
    assert [None if row is None else int(id_table.revisions[row]) for row in rows] == numbers.tolist()
    assert {id_table.row_of(hash_of(name)) for name in others} == {None}
    assert roster_of([]).row_of(hash_of("A-1")) is None


def test_ids_with_the_same_half_of_a_hash_are_told_apart() -> None:
    id_table = roster_of(HASHES)
    assert [id_table.row_of(IdHash(*one)) for one in HASHES] == list(range(len(HASHES)))
    for absent in [(7, 0), (7, 3), (5, 1), (9, 1), (0, 1), (LARGEST, 1), (8, 2)]:
        assert id_table.row_of(IdHash(*absent)) is None


def test_the_ids_that_two_rosters_share_are_found_in_both() -> None:
    id_table = roster_of(HASHES)
    everyone = {(row, row) for row in range(len(HASHES))}
    assert shared(id_table, roster_of(HASHES)) == everyone
    other = [(0, 1), (5, LARGEST), (7, 0), (7, 2), (7, 3), (7, LARGEST), (9, 1), (LARGEST, LARGEST)]
    assert shared(id_table, roster_of(other)) == {(1, 1), (3, 3), (4, 5), (7, 7)}
    assert shared(roster_of(other), id_table) == {(1, 1), (3, 3), (5, 4), (7, 7)}
    assert shared(roster_of([]), id_table) == shared(id_table, roster_of([])) == set()


def test_a_hash_is_the_same_in_every_process_and_release() -> None:
    """What is stored would not be found again otherwise, and two shards would keep, or miss, the same vector."""
    assert hash_of("A-0000001") == IdHash(0xEB580D37FF841CE7, 0x8B0024D30AF1AE33)  # as b2sum has it, little-endian
    assert [IdHash(int(high), int(low)) for high, low in hashes_of(["A-0000001", "名前"])] == [
        hash_of("A-0000001"),
        hash_of("名前"),
    ]


def test_the_order_of_a_roster_is_that_of_the_whole_hash() -> None:
    shuffled = np.random.default_rng(1).permutation(len(HASHES))
    hashes = as_array(HASHES)[shuffled]
    assert np.array_equal(hashes[order_of(hashes)], as_array(HASHES))


@pytest.mark.parametrize("count", [1, 2, 3, 8, 10])
def test_every_id_falls_to_exactly_one_shard_and_all_get_the_same_share(count: int) -> None:
    shards = [Shard(number, count) for number in range(1, count + 1)]
    falls = np.array([[hash_of(f"A-{i:07d}").falls_to(shard) for shard in shards] for i in range(10_000)])
    assert (falls.sum(axis=1) == 1).all()
    assert falls.mean(axis=0) == pytest.approx(1 / count, abs=0.015)


def test_an_id_falls_to_the_same_shard_in_every_process_and_release() -> None:
    falls = [hash_of("A-0000001").falls_to(Shard(number, 1000)) for number in range(1, 1001)]
    assert np.flatnonzero(falls).tolist() == [427]


def known(absent: WithoutVector, names: list[str]) -> dict[str, tuple[int, int, bool] | None]:
    rows = {name: absent.id_table.row_of(hash_of(name)) for name in names}
    return {
        name: None
        if row is None
        else (int(absent.id_table.revisions[row]), int(absent.id_table.offsets[row]), bool(absent.erased[row]))
        for name, row in rows.items()
    }


def test_of_the_absent_the_later_record_is_kept() -> None:
    earlier = WithoutVector.of(["d", "a", "c"], [1, 1, 4], [10, 11, 12], [True, False, True])
    later = WithoutVector.of(["c", "b", "d"], [5, 1, 1], [22, 20, 21], [False, True, False])
    both = later.with_earlier(earlier)
    assert len(both) == 4
    assert known(both, ["a", "b", "c", "d", "e"]) == {
        "a": (1, 11, False),
        "b": (1, 20, True),
        "c": (5, 22, False),
        "d": (1, 21, False),
        "e": None,
    }
    assert np.array_equal(order_of(both.id_table.hashes), np.arange(4))
    assert known(earlier, ["c"]) == {"c": (4, 12, True)}  # neither of the two is changed
    assert known(later, ["c"]) == {"c": (5, 22, False)}


def test_nobody_is_absent_from_nothing() -> None:
    nobody, one = WithoutVector.of([], [], [], []), WithoutVector.of(["a"], [1], [0], [True])
    assert len(nobody) == len(nobody.with_earlier(nobody)) == 0
    assert known(one.with_earlier(nobody), ["a"]) == known(nobody.with_earlier(one), ["a"]) == {"a": (1, 0, True)}


def test_a_table_whose_hashes_do_not_ascend_or_whose_columns_differ_in_length_is_refused() -> None:
    """A search would miss ids, and the last nodes of a segment would be no random sample."""
    numbers = np.arange(2, dtype=np.int64)
    for wrong in ([(7, 1), (5, 9)], [(7, 2), (7, 1)], [(LARGEST, 0), (0, 0)]):
        with pytest.raises(ValueError, match="do not ascend"):
            IdTable(as_array(wrong), numbers, numbers)
        assert len(IdTable.of(as_array(wrong), numbers, numbers)) == 2
    with pytest.raises(ValueError, match="2 hashes, 1 revisions"):
        IdTable(as_array(HASHES[:2]), numbers[:1], numbers)
