"""What the end-to-end tests start and hold: the demo, and a person's terminal."""
