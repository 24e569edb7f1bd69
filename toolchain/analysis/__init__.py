"""What can be said of a program without running it, and of a run layer by layer."""
