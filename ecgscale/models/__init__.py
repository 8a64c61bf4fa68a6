"""Encoders: (batch, lead, time) in, tokens and a pooled vector out. One file per family."""
