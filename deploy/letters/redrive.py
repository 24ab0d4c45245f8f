"""Dead letters are sent again to where they came from, or laid aside; what was done is put on record behind them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from deploy.letters.box import FiledLetter, read_bytes
from deploy.letters.fix import FixRefusedError, LetterFix
from runtime.servers.erasures import ErasureLog
from runtime.servers.publisher import Publisher
from schemas.envelope import decode
from schemas.letters import LetterOutcome, Settled, settled_record
from schemas.settings import Settings

_AT_ONCE = 100  # a letter may be a megabyte
_PATIENCE_S = 30.0

OnDone = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What would be sent of a letter, in words, or why nothing can be."""

    letter: FiledLetter
    sends: str = ""
    refused: str = ""


class Redrive:
    """Sends letters again. Raises ErasureKeyError, and what servers raise that do not answer."""

    def __init__(self, settings: Settings, fix: LetterFix) -> None:
        self._settings, self._fix = settings, fix
        with ErasureLog(settings, "letters") as erasures:
            self._erased = erasures.catch_up().erased

    def judge(self, letters: Sequence[FiledLetter]) -> list[Verdict]:
        """What would become of each where it is read again. Nothing is sent."""
        verdicts = []
        for filed, letter in read_bytes(self._settings, letters):
            try:
                record = self._fix.message(letter, self._erased)
            except FixRefusedError as error:
                verdicts.append(Verdict(filed, refused=str(error)))
            else:
                event = decode(record).event
                verdicts.append(Verdict(filed, sends=f"{type(event).__name__} {event.key}"))
        return verdicts

    def send(self, letters: Sequence[FiledLetter], done: OnDone = lambda _count: None) -> list[FiledLetter]:
        """Send letters again that `judge` did not refuse, and record that it was done; `done` is called with how many.

        Returns those that no broker takes, being too large: they stay open. A letter that was sent and not recorded,
        as a crash leaves it, is open too: sent once more, it changes nothing. Raises UnacknowledgedError where the
        broker does not answer, PublishError where it refuses everything.
        """
        publisher, count, too_large = Publisher(self._settings, "redrive"), 0, []
        messages = (
            (filed, self._fix.message(letter, self._erased)) for filed, letter in read_bytes(self._settings, letters)
        )
        while some := list(islice(messages, _AT_ONCE)):
            problems = publisher.publish_each([record for _, record in some], _PATIENCE_S)
            sent = [filed for (filed, _), problem in zip(some, problems, strict=True) if problem is None]
            too_large += [filed for (filed, _), problem in zip(some, problems, strict=True) if problem is not None]
            marks = [settled_record(Settled(letter=filed.name, outcome=LetterOutcome.REDRIVEN)) for filed in sent]
            publisher.publish_each(marks, _PATIENCE_S)
            count += len(sent)
            done(count)
        return too_large


def discard(settings: Settings, letters: Sequence[FiledLetter], by: str, note: str) -> None:
    """Record that nothing will be done about letters, by whom that was decided, and why."""
    marks = [
        settled_record(Settled(letter=letter.name, outcome=LetterOutcome.DISCARDED, by=by, note=note))
        for letter in letters
    ]
    Publisher(settings, "discard").publish_each(marks, _PATIENCE_S)
