"""The error that ends in a rejection."""

from schemas.events.encodings import RejectionReason


class RejectedError(Exception):
    """A photo cannot be encoded. `reason` is for programs, the text for people: what is wrong, what to do."""

    def __init__(self, reason: RejectionReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
