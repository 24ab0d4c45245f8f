"""Encoders as manifests: what turns a photo into an embedding, and how far its distances can be trusted."""
