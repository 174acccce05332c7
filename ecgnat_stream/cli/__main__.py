"""``python -m ecgnat_stream.cli``."""

from ecgnat_stream.cli import main

if __name__ == "__main__":  # processes that `ecgnat analyse` starts import this too
    main()
