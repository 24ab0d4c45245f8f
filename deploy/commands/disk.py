"""A disk that is full, or that must not be written to: what the user can put right."""

import errno

_FULL = (errno.ENOSPC, errno.EDQUOT)
_CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)


def disk_problem(error: OSError) -> str | None:
    """What is wrong with the disk, and what to do, in one line; None where an error is about something else."""
    where = error.filename or "standard output, or a file that is written,"
    if error.errno in _FULL:
        return f"{where} does not fit on its disk ({error.strerror}): make room, or use another disk"
    if error.errno in _CLOSED and error.filename:
        return (
            f"{where} cannot be read or written ({error.strerror}). FACEMATCH_DATA_FOLDER and FACEMATCH_MODEL_CACHE "
            "name the folders that are written to; jars and the locks of downloads are in ~/.cache"
        )
    return None
