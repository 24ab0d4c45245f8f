"""What is published of newcomers and of those who leave. Pure."""
