"""From a decoded photo to an embedding. Pure."""
