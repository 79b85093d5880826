"""Reading draws (`alignment`), judging them (`convergence`), and proving a sampler right (`calibration`)."""
