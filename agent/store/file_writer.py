"""Writing one file of a FileStore: nameless or hidden until it is whole. Raises OSError only."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets

# What file systems without O_TMPFILE say (NFS, 9p, old overlayfs).
_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)

# Every 8 MiB the kernel is told to start writing them back (POSIX_FADV_DONTNEED does that at once
# and without waiting, and keeps pages that are still dirty in the cache), so that the disk works
# during the capture and not only in fsync. Two threads writing 1 GiB of random data in all, write +
# fsync, medians of 5: 1.11 -> 0.80 s flat out, 2.00 -> 1.50 s at the pace of compression. An
# fdatasync every 16 or 64 MiB made it 1.66 or 0.93 s; sync_file_range was no better.
_WRITEBACK_BYTES = 8 << 20


class PendingFile:
    """A file made in the open directory ``parent`` under no name, or none that anyone would read.

    A killed process leaves nothing where O_TMPFILE works, and a hidden file where it does not.
    """

    def __init__(self, parent: int, name: str) -> None:
        self._hidden: tuple[int, str] | None = None  # its directory and name
        self._written = 0
        self._started = 0
        flags = os.O_WRONLY | os.O_CLOEXEC
        try:
            self._fd = os.open(".", flags | os.O_TMPFILE, 0o600, dir_fd=parent)
        except OSError as error:
            if error.errno not in _NO_TMPFILE:
                raise
            hidden = f".{name}.{secrets.token_hex(4)}.part"
            self._fd = os.open(hidden, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=parent)
            self._hidden = os.dup(parent), hidden

    def write(self, data: memoryview) -> None:
        """Append all of ``data``."""
        while data:
            count = os.write(self._fd, data)
            self._written += count
            data = data[count:]
        behind = self._written - self._started
        if behind >= _WRITEBACK_BYTES:
            os.posix_fadvise(self._fd, self._started, behind, os.POSIX_FADV_DONTNEED)
            self._started = self._written

    def sync(self) -> None:
        """Make the content durable, and be sure that it is all there."""
        os.fsync(self._fd)
        if os.fstat(self._fd).st_size != self._written:
            raise OSError(errno.EIO, f"the file is not the {self._written} bytes long it should be")

    def link(self, parent: int, name: str) -> None:
        """Give it a name in the open directory ``parent``. FileExistsError when that is taken."""
        if self._hidden:
            os.link(self._hidden[1], name, src_dir_fd=self._hidden[0], dst_dir_fd=parent)
        else:
            # What open(2) says to do without CAP_DAC_READ_SEARCH. Only with a directory descriptor
            # does os.link() call linkat(2), which follows that link to the file itself.
            os.link(f"/proc/self/fd/{self._fd}", name, dst_dir_fd=parent)

    def close(self) -> None:
        """Give up the file; what was linked stays. Never raises: what matters was synced before."""
        with contextlib.suppress(OSError):  # NFS tells of a full disk here once more
            os.close(self._fd)
        if self._hidden:
            parent, hidden = self._hidden
            with contextlib.suppress(OSError):
                os.unlink(hidden, dir_fd=parent)
            os.close(parent)
