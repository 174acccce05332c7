"""Training: programs, ``python -m train.NAME``, and the rooms of what they are made of.

``data/`` what there is to learn from, ``fit/`` what learns, ``judge/`` what a network is worth, ``compare/`` networks side by
side, ``signal/`` the programs that fit the constants of the signal path. All of it uses the runtime's own model and conditioning.
"""
