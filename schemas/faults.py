"""What all exceptions share that the user can put right."""


class UserFault(Exception):  # noqa: N818 - "Error" says nothing of whose it is
    """What the user can put right; the text says how.

    The command line shows the text without a traceback, and ends with exit status 2.
    """
