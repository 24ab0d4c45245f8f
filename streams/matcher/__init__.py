"""The matcher: a Faust worker that follows `encodings`."""
