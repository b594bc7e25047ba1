"""Several calibrated views at once: matched rays, what is believed beforehand, and cameras that
fit both; see `adjust`."""
