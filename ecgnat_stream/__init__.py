"""Real-time ECG rhythm monitoring."""

__version__ = "0.2.0"
