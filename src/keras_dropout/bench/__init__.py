"""The bench: is dropout worth it on a model, where, and how much. It stands on the layers, which never import it."""
