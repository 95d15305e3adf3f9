"""From a folder to a published task, and where its bytes are."""
