"""The sink: events → tables of Postgres."""
