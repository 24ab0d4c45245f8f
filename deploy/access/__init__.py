"""Users of the servers, and what each may do."""
