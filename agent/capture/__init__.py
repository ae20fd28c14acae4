"""From CRIU's pipes to durable streams: cut into chunks, compress, write. Bytes, in threads."""
