"""What is created before the workers start: topics, tables, the outbox."""
