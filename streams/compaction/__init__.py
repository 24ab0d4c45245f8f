"""The nightly compaction: the index from scratch, the pairs put right."""
