"""What the measurements mean: growth laws and crossovers. Numbers in, numbers out; never imports torch."""
