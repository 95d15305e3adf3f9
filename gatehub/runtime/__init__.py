"""The runtime: many tasks on one resident backbone."""
