"""The flight-delays pipeline: prepare, train, evaluate."""
