"""What `facematch status`, `duplicates` and `settings` print."""
