"""What takes events out of Kafka: the encoder pools and the Postgres sink."""
