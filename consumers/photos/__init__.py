"""Photos: fetched safely, decoded safely."""
