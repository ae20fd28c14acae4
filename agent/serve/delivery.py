"""Images on their way into CRIU's pipes, each at its reader's pace.

A damaged image must never look like a short one. CRIU takes the end of a pipe for the end of most
images, so those are checked to their last byte before the first one is written. Of pages it knows
how many it needs, and fails when there are fewer: those are written while they are being read.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Final

from agent.errors import AgentError, RestoreFailed
from agent.host.pipes import PipeWriter, WriterClosed, prepare
from agent.manifest import Image
from agent.serve.prefetch import Prefetch, Stopped, is_streamed

# Why a pipe was left before its image was complete, other than through an error of ours: CRIU has
# closed its end, or the owner has closed the prefetch or the delivery.
_LEFT: Final = (BrokenPipeError, WriterClosed, Stopped)


class Delivery:
    """Writes images into pipes: what fits at once, the rest from a thread for each image.

    CRIU has at most a few pipes open for each task that it restores at the moment, so threads are
    few, and a reader that waits for another pipe stops nobody.
    """

    def __init__(self, prefetch: Prefetch, failed: Callable[[AgentError], None]) -> None:
        """``failed`` is called from any thread with whatever keeps an image from being complete."""
        self._prefetch = prefetch
        self._failed = failed
        self._writer = PipeWriter()
        self._threads: list[threading.Thread] = []
        self._incomplete: list[int] = []

    @property
    def bytes_written(self) -> int:
        """Bytes written into all pipes so far."""
        return self._writer.written

    def content(self, image: Image) -> bytes | None:
        """A small image whole and checked; None for one that is written while it is read."""
        return None if is_streamed(image) else self._prefetch.whole(image)

    def begin(self, image: Image, content: bytes | None, pipe: int) -> None:
        """Write an image, of which ``content`` was asked for before, into ``pipe`` and close it.

        From one thread only. Returns at once.
        """
        prepare(pipe, image.size)
        if content is None:
            self._spawn(image, pipe, lambda: self._stream(image, pipe))
            return
        rest = memoryview(content)
        try:
            rest = rest[self._writer.write_now(pipe, rest) :]
        except BrokenPipeError:
            rest = rest[:0]
        if rest:
            self._spawn(image, pipe, lambda: self._writer.write(pipe, rest))
        else:
            os.close(pipe)

    def join(self) -> None:
        """Wait until every image that was begun is written or given up."""
        for thread in self._threads:
            thread.join()

    def close(self) -> None:
        """Give up what is still being written. The prefetch has to be closed before."""
        self._writer.stop()
        self.join()
        for pipe in self._incomplete:
            os.close(pipe)
        self._incomplete.clear()
        self._writer.close()

    def _spawn(self, image: Image, pipe: int, write: Callable[[], None]) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        name = f"serve {image.name}"
        thread = threading.Thread(target=self._run, name=name, args=(image, pipe, write))
        self._threads.append(thread)
        thread.start()

    def _run(self, image: Image, pipe: int, write: Callable[[], None]) -> None:
        complete = False
        try:
            write()
            complete = True
        except _LEFT:
            pass
        except AgentError as error:
            self._failed(error)
        except Exception as error:
            # CRIU would wait for the rest for ever.
            self._failed(RestoreFailed(image.name, f"a defect of the agent: {error!r}"))
            raise
        finally:
            # CRIU notices missing pages by itself. The end of any other pipe would tell it that
            # the image is whole: it stays open until CRIU has ended.
            if complete or image.name.startswith("pages-"):
                os.close(pipe)
            else:
                self._incomplete.append(pipe)

    def _stream(self, image: Image, pipe: int) -> None:
        write = self._writer.write_pages
        if not image.name.startswith("pages-"):
            for piece in image.pieces:
                # A restore that is given up does not wait for the rest of a big image.
                self._prefetch.check()
                self._prefetch.reader.read(piece.chunk)
            # What is given up half-way stays in the pipe, and must not be lent memory.
            write = self._writer.write
        with self._prefetch.open(image) as pieces:
            for data in pieces:
                write(pipe, data)
                # Not held while the next piece is waited for.
                del data
