"""Training samples from clips: which frames and points (``sampling``), cut and augmented (``dataset``)."""
