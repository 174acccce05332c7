"""Device adapters for ecgnat-stream, one module per device family."""
