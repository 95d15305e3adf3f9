"""gatehub eval and predict: an adapter's accuracy and its answers."""
