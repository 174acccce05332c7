"""The network: windows in, rhythm probabilities out. The only package that imports torch."""
