"""gatehub serve: its options, its engine, its processes."""
