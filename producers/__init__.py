"""What puts events into Kafka."""
