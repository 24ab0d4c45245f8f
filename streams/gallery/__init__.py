"""The individuals and their embeddings, and the search among them. Pure."""
