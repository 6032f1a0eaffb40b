"""DICOM: series as volumes, volumes as series, and what must not go out."""
