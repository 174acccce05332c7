"""Programs that fit the constants of the signal path, ``ecgnat_stream/weights/*.json``: ``python -m train.signal.NAME``."""
