"""A file of people to be erased: every bad line is named, and nobody is erased then."""

import pytest

from deploy.erasure.file import BadLinesError, Leaving, read_lines
from deploy.erasure.topics import Person


def test_a_line_is_a_key_or_csv() -> None:
    lines = [
        "collection,individual_id,revision\n",
        "camp-a/A-1001\r\n",
        "\n",
        "camp-a/A/1,2\n",
        'camp-a,"A, the second",7\n',
        "camp-b,A/3,\n",
        "camp-b,Zoë\n",
        "camp-a/A-1001\n",
    ]
    assert read_lines(lines) == [
        Leaving(Person("camp-a", "A-1001"), None, 2),
        Leaving(Person("camp-a", "A/1,2"), None, 4),
        Leaving(Person("camp-a", "A, the second"), 7, 5),
        Leaving(Person("camp-b", "A/3"), None, 6),
        Leaving(Person("camp-b", "Zoë"), None, 7),
    ]


def test_every_bad_line_is_named() -> None:
    lines = ["good/a", "nothing", "ca mp/a", "c,a,0", "c,a,1,2", "c,a,１", "c/", "c/a\x07b", '"c,a']
    with pytest.raises(BadLinesError) as bad:
        read_lines(lines)
    text = str(bad.value)
    assert text.startswith("nobody is erased. line 2: ")
    assert [f"line {number}: " in text for number in range(1, 10)] == [False, *[True] * 8]
    with pytest.raises(BadLinesError, match=r"line 20: .*and 80 more$"):
        read_lines(["x"] * 100)
