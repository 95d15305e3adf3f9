"""What saves time and memory in a training run, and hardly touches what is learned."""
