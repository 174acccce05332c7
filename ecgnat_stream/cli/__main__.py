"""``python -m ecgnat_stream.cli``."""

from ecgnat_stream.cli import main

main()
