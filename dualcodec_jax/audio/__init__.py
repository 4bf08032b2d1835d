"""Audio: files, resampling, filterbank, spectra."""
