"""The commands that make adapters of adapters."""
