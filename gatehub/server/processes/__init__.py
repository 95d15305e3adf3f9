"""A server in several processes, each with a backbone of its own, behind one address."""
