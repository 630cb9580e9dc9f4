"""Floor 0: errors, back-end choice, operator registration and the native library loader."""
