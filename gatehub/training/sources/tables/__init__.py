"""Tables of labelled images: delimited text, its columns, and how labels stand in them."""

from gatehub.training.sources.tables.merging import read_tables
from gatehub.training.sources.tables.table import has_named_columns

__all__ = ["has_named_columns", "read_tables"]
