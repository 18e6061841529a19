"""The soak: producers and consumers under a seeded schedule of faults, and an account of every message."""
