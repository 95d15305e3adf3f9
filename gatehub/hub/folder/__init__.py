"""A hub that is a folder, on a disk or in any store that fsspec knows."""
