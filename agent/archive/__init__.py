"""The archive that CRI-O, containerd and Podman keep a checkpointed container in: out and in.

    config.dump, spec.dump, ...     what it was (:mod:`agent.archive.facts`)
    checkpoint/                     CRIU's images
    rootfs-diff.tar, deleted.files  its writable layer (:mod:`agent.archive.layer`)
    devshm-checkpoint.tar, volumes/ what it shared

Both ways are streams: no byte of an image is unpacked to disk.
"""
