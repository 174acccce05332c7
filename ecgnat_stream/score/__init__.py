"""How good the monitor is: annotated records run through it, compared with what experts marked (``ecgnat score``)."""
