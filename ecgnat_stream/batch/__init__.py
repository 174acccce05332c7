"""Many recordings: which ones, several processes that analyse them, and what is written as they finish.

``choose`` finds recordings, ``work`` does one of them in a process of its own, ``pool`` keeps the processes and outlives any that
dies, ``lines`` holds the results on disk, so that a run that was ended goes on, and ``table`` has their columns.
"""
