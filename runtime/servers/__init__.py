"""Kafka, Redis and Postgres: one way to reach each, with patience while it is away."""
