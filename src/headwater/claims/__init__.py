"""Per published system, the smallest experiment that would fail if its mechanism were missing."""
