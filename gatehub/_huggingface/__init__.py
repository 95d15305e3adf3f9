"""The Hugging Face Hub as a program meets it: its refusals as sentences, its silences cut short."""
