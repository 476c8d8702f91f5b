"""Coverage-guided fuzzing of what strangers' bytes reach first. `python -m tests.fuzz TARGET --runs N`, or `make fuzz`."""
