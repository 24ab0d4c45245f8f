"""The encoder pools: photo → face → embedding."""
