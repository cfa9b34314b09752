"""What to say of an error that the user can do something about; every other one is a defect and keeps its traceback."""

from __future__ import annotations

import errno

_SAFE = "What was whole before is unchanged; run the same command again afterwards."
_REASONS = {
    errno.ENOSPC: f"the disk is full. Make room there. {_SAFE}",
    errno.EDQUOT: f"your quota on this disk is used up. Make room there. {_SAFE}",
    errno.EFBIG: f"files may not become so large here (ulimit -f, or the file system). {_SAFE}",
    errno.EROFS: f"it is on a file system that can only be read. Name another folder, e.g. with --run. {_SAFE}",
    errno.EACCES: f"permission was denied. Change the permissions, or name another folder, e.g. with --run. {_SAFE}",
    errno.EPERM: f"it is not permitted. Change the permissions, or name another folder, e.g. with --run. {_SAFE}",
}

# How jsonargparse begins where an optional class refused what it was built with. What follows is what each kind of the
# option said, and all options; the error was raised from the one that the class itself raised.
_UNION = "Does not validate against any of the Union subtypes"


def message_of(error: BaseException) -> str | None:
    """Return one message for the user; None where a traceback says more.

    Args:
        error: What a command raised. An error that another one was raised from counts too.
    """
    if isinstance(error, ValueError) and str(error).startswith(_UNION) and isinstance(error.__cause__, ValueError):
        return message_of(error.__cause__)
    if isinstance(error, ValueError | FileNotFoundError):
        return str(error)
    disk = error if isinstance(error, OSError) else error.__cause__
    if isinstance(disk, ValueError):
        return str(error)
    if not isinstance(disk, OSError) or disk.errno not in _REASONS:
        return None
    where = disk.filename if isinstance(disk.filename, str) else None
    told = f"{where or 'A file'} could not be written or read: {_REASONS[disk.errno]}"
    # What was raised from it says what was being done, and what is safe.
    return told if disk is error else f"{error}\n{told}"
