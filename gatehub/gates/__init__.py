"""The method: one learned scalar for each (output channel, input channel) pair of a frozen kernel.

Source: "model projection", arXiv 2602.06245.
"""
