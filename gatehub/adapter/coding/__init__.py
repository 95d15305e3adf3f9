"""The numbers of an adapter: which ones are sound, and gates in fewer bytes than floats take."""
