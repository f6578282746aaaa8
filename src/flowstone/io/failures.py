"""What an error of the operating system means for a stored value."""

from __future__ import annotations

import errno
from typing import NamedTuple

from flowstone.errors import StorageError, StorageFailure

_MAX_REASON = 500


class Failure(NamedTuple):
    """A kind of failure and what to do about it."""

    kind: StorageFailure
    remedy: str


_FULL = Failure("full", "Free space or raise the quota; the previous version is still readable.")
_DENIED = Failure("denied", "Give the user that runs this process the right to read and write there.")
_READ_ONLY = Failure("read_only", "Mount it writable, or choose another root.")
_MISSING = Failure("missing", "Materialize the asset again, or restore the file from a backup.")
_BLOCKED = Failure("other", "Something else lies where a folder or file is expected; move it away.")
_TOO_LONG = Failure("too_large", "Use a shorter root, asset name or partition key.")
_OTHER = Failure("other", "Look at the disk and its mount; the previous version is still readable.")

_BY_ERRNO = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EROFS: _READ_ONLY,
    errno.ENOENT: _MISSING,
    errno.ENOTDIR: _BLOCKED,
    errno.EISDIR: _BLOCKED,
    errno.EEXIST: _BLOCKED,
    errno.ENAMETOOLONG: _TOO_LONG,
}


def storage_error(action: str, asset: str, partition: str, error: OSError) -> StorageError:
    """Return the StorageError for what the operating system said.

    Args:
        action: `"store"`, `"load"` or `"delete"`.
        asset: asset name.
        partition: encoded partition key.
        error: what was raised.

    Example:
        >>> storage_error("store", "numbers", "", OSError(errno.ENOSPC, "No space left on device")).kind
        'full'
    """
    failure = _BY_ERRNO.get(error.errno or 0, _OTHER)
    why = str(error)
    if len(why) > _MAX_REASON:
        why = f"{why[:_MAX_REASON]}..."
    return StorageError(action, asset, partition, why, kind=failure.kind, remedy=failure.remedy)
