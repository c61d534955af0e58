"""Transcriptions of the papers' algorithms into NumPy float64, one file each."""
