"""The guides run as they stand, and hold what they promise when they are killed."""
