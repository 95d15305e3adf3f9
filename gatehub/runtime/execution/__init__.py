"""Programs and weights to logits."""
