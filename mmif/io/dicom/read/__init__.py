"""DICOM series as volumes with the right geometry, or the reason why not."""
