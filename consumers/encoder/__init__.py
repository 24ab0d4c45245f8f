"""The encoder pools: a registration's photo → its face → an embedding, or a rejection."""
