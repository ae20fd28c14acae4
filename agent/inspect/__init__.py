"""What a checkpoint holds, read from its images: :func:`inspect`."""

from agent.inspect.inspection import (
    ImageSize,
    Inspection,
    MemberInspection,
    VolumeSize,
    inspect,
)

__all__ = ["ImageSize", "Inspection", "MemberInspection", "VolumeSize", "inspect"]
