"""From stored chunks into CRIU's pipes: read ahead, decompress, serve. Bytes, in threads."""
