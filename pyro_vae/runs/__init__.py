"""Run folders: keeping what a training leaves, and opening it again."""
