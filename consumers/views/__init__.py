"""Reading the tables that the sink writes."""
