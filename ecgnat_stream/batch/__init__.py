"""Many recordings: which ones, several processes that analyse them, and what is written as they finish.

``choose`` finds recordings, ``targets`` tries where results go, ``work`` analyses a batch of recordings, ``pool`` keeps
processes that do so and outlives any that dies, ``lines`` holds the results on disk, so that a run that was ended goes on, and
``table`` has their columns.
"""
