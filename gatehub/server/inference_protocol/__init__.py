"""The Open Inference Protocol, version 2, over HTTP: each task is a model, as in Triton."""
