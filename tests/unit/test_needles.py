"""Many byte strings are found at once, wherever they stand."""

import random

from deploy.erasure.needles import Needles


def test_it_finds_what_a_search_for_each_finds() -> None:
    chance = random.Random(1)
    text = bytes(chance.choices(b"abcd", k=5000)) + "Zoë Müller".encode() * 3
    needles: dict[bytes, object] = {
        text[at : at + length]: (at, length) for at in range(0, 5000, 250) for length in (1, 3, 4, 5, 11, 40)
    }
    needles |= {b"never there": -1, b"x": -2, "ë M".encode(): -3}
    expected = {
        (at + len(needle), owner)
        for needle, owner in needles.items()
        for at in range(len(text))
        if text.startswith(needle, at)
    }
    found = list(Needles(needles).find(text))
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_it_finds_what_lies_on_the_border_of_two_pieces() -> None:
    needle = bytes(range(1, 101))
    for before in (2**20 - 100, 2**20 - 50, 2**20 - 2, 2**20, 2**21 - 1):
        text = bytes(before) + needle + bytes(2**20)
        assert list(Needles({needle: "it"}).find(text)) == [(before + 100, "it")]
    assert list(Needles({}).find(b"text")) == []
