"""The fusion network, and how a stack of slices goes through it."""
