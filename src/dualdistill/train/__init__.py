"""From an experiment to trained weights: assembly, data order, steps, teacher cache, run folders."""
