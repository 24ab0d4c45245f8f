"""The processes of a pool, fed by one consumer; answers leave in the order of the records."""
