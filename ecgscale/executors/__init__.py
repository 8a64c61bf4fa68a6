"""Executors run many trials; they have never heard of Lightning."""
