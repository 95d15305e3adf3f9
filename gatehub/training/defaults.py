"""What a recipe takes where nobody says otherwise; apart, so that `--help` shows it at once."""

from __future__ import annotations

STEPS = 240  # where no number of epochs is given
BATCH_SIZE = 32
WARMUP = 0.3
LABEL_SMOOTHING = 0.0
AVERAGING = 0.125
KEEP = "auto"
VAL_IMAGES = 500
HFLIP = 0.0
AUTO_AUGMENT = ""
COLOR_JITTER = 0.0
RANK = 4  # of --method lora
DECODED_BYTES = 1_000_000_000
DISTILL_STEPS = 300
DISTILL_MAX_DROP = 0.05
