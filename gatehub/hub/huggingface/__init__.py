"""The Hugging Face Hub, or a server that speaks its protocol."""
