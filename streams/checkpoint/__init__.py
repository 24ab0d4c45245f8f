"""All that the streams keep in Redis."""
