"""Bad inputs by class, full disks, kills and damaged files: nothing is silent, nothing is lost."""
