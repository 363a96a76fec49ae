"""What models say about themselves in files next to them, in the forms of several frameworks."""
