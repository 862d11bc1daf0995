"""Whether an image survives: protocols, driver, judge, verdict store."""
