"""A container to a real S3 server and back: uploads run while it is dumped, ranges come back."""

from __future__ import annotations

import pytest

from agent.errors import StoreFailed
from agent.manifest import MANIFEST
from agent.store import open_store
from agent.verify import verify
from tests.integration.aftermath import assert_unharmed
from tests.integration.lab import Lab
from tests.integration.test_container_roundtrip import (
    assert_resumed,
    assert_unchanged,
    forgotten,
    started,
)
from tests.servers.s3 import S3Server

pytestmark = [pytest.mark.root, pytest.mark.criu]


@pytest.mark.slow
async def test_through_a_real_s3_server(
    lab: Lab, swift: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    swift.log_in(monkeypatch)
    remote = lab.with_store(open_store(swift.url("checkpoints", f"/{lab.directory.name}")))
    # Large enough that every stream becomes a multipart upload of several parts.
    container = started(lab, 64)
    done = await remote.checkpoint(container, streams=2, codec="none")
    assert lab.operations() == []
    assert done.path.startswith("s3://checkpoints/")
    stored = sorted(remote.stored())
    assert stored == [
        f"{done.checkpoint_id}/{name}" for name in (MANIFEST, "stream-000", "stream-001")
    ]

    await verify(remote.store, done.checkpoint_id)
    container.delete()
    ticks = forgotten(container)
    await remote.restore(done.checkpoint_id)

    assert_resumed(container, 0, ticks)
    assert_unchanged(container)


async def test_a_server_that_refuses(
    lab: Lab, swift: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found out before the container is touched."""
    swift.log_in(monkeypatch)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    container = started(lab)
    with pytest.raises(StoreFailed) as failed:
        await lab.with_store(open_store(swift.url("checkpoints"))).checkpoint(container)
    assert "wrong" not in str(failed.value)
    assert lab.operations() == []
    assert_unharmed(container)
