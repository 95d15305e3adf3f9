"""gatehub train: from images to an adapter."""
