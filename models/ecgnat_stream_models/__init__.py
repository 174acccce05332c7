"""Further checkpoints for ecgnat-stream, one folder each with its model card. ``ecgnat_stream`` finds them by name."""

__version__ = "0.2.0"
