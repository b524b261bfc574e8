"""Named experiments: functions that return an `Experiment`."""
