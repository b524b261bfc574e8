"""What things cost: every fast form beside its reference, timed in one run, with equal results."""
