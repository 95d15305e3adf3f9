"""Tables of labelled images: delimited text, its columns, and how labels stand in them."""

from gatehub.training.sources.tables.table import has_named_columns, read_table

__all__ = ["has_named_columns", "read_table"]
