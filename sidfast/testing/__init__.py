"""What tests and benchmarks share; nothing else imports it."""
