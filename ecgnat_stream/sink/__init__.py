"""Sinks: what leaves the monitor, and how. Each subscribes to the bus when built, and runs until the bus is closed."""
