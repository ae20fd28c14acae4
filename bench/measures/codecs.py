"""What codecs and numbers of streams do to wall time, frozen time and size."""

from __future__ import annotations

from bench.bundle import COUNTER, memory
from bench.lab import Lab, settle
from bench.outcome import Outcome, Samples

CODECS = ("none", "lz4", "zstd:-3", "zstd:1", "zstd:3")
STREAMS = (1, 2, 4, 8)
USUAL_STREAMS, USUAL_CODEC = 4, "zstd"


def measure(lab: Lab) -> Outcome:
    """Rounds over all codecs with four streams and all numbers of streams with zstd."""
    container = lab.runc.start(lab.runc.build(COUNTER, memory(lab.scale.container)))
    contenders = [(codec, USUAL_STREAMS) for codec in CODECS]
    contenders += [(USUAL_CODEC, streams) for streams in STREAMS]
    samples = Samples()
    for _ in range(lab.scale.codec_rounds):
        for codec, streams in contenders:
            lab.empty_store()
            settle()
            finished, wall = lab.checkpoint(container, "--compression", codec,
                                            "--streams", str(streams))  # fmt: skip
            samples.add(f"{codec}, {streams} streams", wall=wall,
                        frozen=finished.number("frozen_seconds"),
                        raw=finished.number("bytes_raw"),
                        stored=finished.number("bytes_stored"))  # fmt: skip
    container.delete()
    lab.empty_store()
    title = f"Codecs and streams, checkpoint of {lab.scale.container} MiB"
    return Outcome("codecs", title, samples)
