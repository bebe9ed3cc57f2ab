"""Reading a pipe or a terminal in a thread that can be stopped."""

import io
import os
import select
import stat
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


def is_slow(stream: BinaryIO) -> bool:
    """Whether a stream's rows may come one by one: it is not a file on disk, and can be polled."""
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except (OSError, ValueError):  # a stream in memory
        return False
    return not stat.S_ISREG(mode) and hasattr(select, "poll")


class PolledStream(io.RawIOBase):
    """The bytes of a file descriptor until its end, or until `stop`."""

    # A thread that is blocked in a plain read could not be ended, and Python cannot exit cleanly
    # while a thread holds the lock of sys.stdin.

    def __init__(self, descriptor: int):
        """Start at the descriptor's position. It stays open when this stream is closed."""
        super().__init__()
        self._descriptor = descriptor
        self._stopped, self._stop = os.pipe()
        self._poll = select.poll()
        for each in (descriptor, self._stopped):
            self._poll.register(each, select.POLLIN | select.POLLHUP | select.POLLERR)

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Wait for bytes, and read what there is. 0 is the end."""
        view = memoryview(buffer).cast("B")
        ready = {descriptor for descriptor, _ in self._poll.poll()}
        if self._stopped in ready:
            return 0
        data = os.read(self._descriptor, len(view))
        view[: len(data)] = data
        return len(data)

    def stop(self) -> None:
        """End the stream for its reader, in whatever thread it waits."""
        os.write(self._stop, b".")

    def close(self) -> None:
        """Close the stream. No thread may read it any more."""
        if not self.closed:
            os.close(self._stopped)
            os.close(self._stop)
        super().close()


def buffered(stream: PolledStream) -> BinaryIO:
    """Return a stream of lines over a polled stream."""
    return cast("BinaryIO", io.BufferedReader(stream))
