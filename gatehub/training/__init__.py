"""Teaching an adapter: where images come from, what is trained, and how."""
