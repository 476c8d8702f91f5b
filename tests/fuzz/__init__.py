"""Fuzzing, guided by coverage, of what strangers' bytes reach first: `make fuzz`."""
