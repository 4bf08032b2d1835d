"""Writers of array_record data sets, through TFDS and without TensorFlow."""
