"""What the local stack's user can put right."""

from schemas.faults import UserFault


class LocalStackError(UserFault):
    """Something of the local stack cannot be had on this machine. The text says what, and why."""
