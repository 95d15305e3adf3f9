"""A network as a program: recorded once, checked, partitioned, lowered to a function of weights."""
