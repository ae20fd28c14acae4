"""Many clients at once that ask an API for checkpoints, and do not give up when it is away."""

from __future__ import annotations

import http.client
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.api_servers import Api
from tests.http import Answer

# Seconds between two attempts, and until a client gives up: a key whose action an API was killed
# with is free again after 40 (agent.api.sweeper), and attempts wait up to 8 for that.
RETRY, PATIENCE = 0.25, 90.0


@dataclass(frozen=True, slots=True)
class Post:
    """What a client asks for; the same key is the same request."""

    key: str
    pod_uid: str


def posts_of(
    client: int, count: int, *, sharing: int, pods: Sequence[str], rare: Sequence[str], every: int
) -> list[Post]:
    """What a client posts: in turn one under a key that its neighbours use too, one of its own.

    Args:
        sharing: clients that have the same keys.
        pods: UIDs that are asked for in turn.
        rare: UIDs that one in ``every`` keys is for.
    """
    made = []
    for number in range(count):
        group = client // sharing if number % 2 == 0 else client
        key = f"{'shared' if number % 2 == 0 else 'own'}-{group}-{number}"
        place = group * count + number
        slow = every and (place // 2) % every == 0
        chosen = rare[place // 2 // every % len(rare)] if slow else pods[place % len(pods)]
        made.append(Post(key, chosen))
    return made


@dataclass
class Load:
    """Clients, each in a thread of its own.

    Attributes:
        apis: instances; a client whose one is away goes to the next.
        ids: by key, what was answered with 200.
        failed: attempts that were not answered, or with a 5xx.
        unexpected: what should not have been.
    """

    apis: Sequence[Api]
    ids: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    failed: int = 0
    unexpected: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _threads: list[threading.Thread] = field(default_factory=list)

    @property
    def answered(self) -> int:
        """Posts that were answered with 200."""
        with self._lock:
            return sum(map(len, self.ids.values()))

    @property
    def accepted(self) -> set[str]:
        """Ids of all actions that somebody was told of."""
        with self._lock:
            return {action_id for ids in self.ids.values() for action_id in ids}

    def begin(self, client: int, posts: Sequence[Post]) -> None:
        """Start a client, which sends one post after the other."""
        thread = threading.Thread(target=self._send_all, args=(client, posts))
        self._threads.append(thread)
        thread.start()

    def finish(self) -> None:
        """Wait until all clients have all their answers."""
        for thread in self._threads:
            thread.join()

    def _send_all(self, client: int, posts: Sequence[Post]) -> None:
        for post in posts:
            self._send(client, post)

    def _send(self, turn: int, post: Post) -> None:
        """Post until it is answered with 200, by whichever instance."""
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = _attempt(self.apis[turn % len(self.apis)], post)
            if answer is not None and answer.status < 500:
                return self._note(post, answer)
            with self._lock:
                self.failed += 1
                if time.monotonic() > deadline:
                    self.unexpected.append(f"{post}: {answer.text if answer else 'no answer'}")
                    return None
            turn += 1
            time.sleep(RETRY)

    def _note(self, post: Post, answer: Answer) -> None:
        with self._lock:
            if answer.status == 200:
                self.ids[post.key].append(answer.text)
            else:
                self.unexpected.append(f"{post}: {answer.status} {answer.text}")


@contextmanager
def load_on(*apis: Api) -> Iterator[Load]:
    """A load whose clients have ended when the block is left."""
    load = Load(apis)
    try:
        yield load
    finally:
        load.finish()


def _attempt(api: Api, post: Post) -> Answer | None:
    """The answer; None where there was none."""
    try:
        return api.post("/v2/checkpoint/pod", {"pod_id": post.pod_uid}, key=post.key)
    except (OSError, http.client.HTTPException):
        return None
