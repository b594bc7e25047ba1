"""Feature matches make the ray model's cameras exact where views overlap; see `refine`."""
