"""What the files in an archive are called, and what each engine makes of them."""

from __future__ import annotations

from enum import StrEnum

# The container's own description: an engine's config, and OCI's config.json.
CONFIG_DUMP = "config.dump"
SPEC_DUMP = "spec.dump"
# containerd and CRI-O: the CRI's ContainerStatus.
STATUS_DUMP = "status.dump"

# CRIU's images, and runc's descriptors.json among them.
IMAGES = "checkpoint"
STATS_DUMP = "stats-dump"

# Podman and CRI-O unpack the one and delete what the other lists, in this order. containerd writes
# an OCI layer instead, compressed, with `.wh.` files in it.
ROOTFS_DIFF = "rootfs-diff.tar"
DELETED_FILES = "deleted.files"

DEV_SHM = "devshm-checkpoint.tar"
VOLUMES = "volumes"

# Podman's `checkpoint --pre-checkpoint`: pages without processes.
PRE_CHECKPOINT = "pre-checkpoint"


class Form(StrEnum):
    """How an archive is compressed."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"
