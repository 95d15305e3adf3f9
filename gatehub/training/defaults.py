"""What a recipe takes where nobody says otherwise; apart, so that `--help` shows it at once."""

from __future__ import annotations

STEPS = 240  # where no number of epochs is given
BATCH_SIZE = 32
HFLIP = 0.0
AUTO_AUGMENT = ""
