"""The fault harness: simulated hearts on a real monitor process, everything around it misbehaving, and a checker that counts.

``plan`` says what happens to every heart and which fault comes when; ``hearts`` makes the signals, ``devices`` delivers them
with their faults, ``worker`` is the monitor process, ``broker`` and ``peers`` are what it talks to, ``receivers`` note what
reaches each sink, ``conduct`` lets it all happen, ``check`` counts afterwards and ``table`` prints. Times are seconds since the
plan began.
"""
