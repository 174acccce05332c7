"""Training programs, run from a checkout: each is one linear program, and uses the runtime's own model and conditioning."""
