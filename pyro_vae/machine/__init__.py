"""The machine: its devices, and several processes."""
