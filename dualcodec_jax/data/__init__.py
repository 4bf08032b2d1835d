"""Training data: sources, filters, crops, checkpointable batches, statistics, feature cache."""
