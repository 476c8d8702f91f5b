"""`make audit`: known weaknesses of what the lock pins, bandit's severe findings, a bill of materials (CycloneDX)."""
