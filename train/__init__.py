"""Training: programs, ``python -m train.NAME``, and the rooms of what they are made of.

``data/`` what there is to learn from, ``fit/`` what learns, ``judge/`` what a network is worth, ``compare/`` networks side by
side, ``signal/`` the programs that fit the constants of the signal path. All of it uses the runtime's own model and conditioning.
"""

from importlib.util import find_spec

for _module, _package in (("sklearn", "scikit-learn"), ("matplotlib", "matplotlib"), ("tensorboard", "tensorboard")):
    if find_spec(_module) is None:
        raise ImportError(f"train needs {_package}: pip install 'ecgnat-stream[train]', in a checkout pip install -e '.[train]'")
