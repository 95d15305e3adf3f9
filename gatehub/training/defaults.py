"""What a recipe takes where nobody says otherwise; apart, so that `--help` shows it at once."""

from __future__ import annotations

EPOCHS = 20
BATCH_SIZE = 32
GATE_RATE = 0.03
HEAD_RATE = 0.01
HFLIP = 0.0
AUTO_AUGMENT = ""
