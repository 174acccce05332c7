"""The beats stage as compiled loops, one bed after the other: the same arithmetic as the plain code, tested equal."""
