"""One training by several processes, each on its device and with its share of every batch."""
