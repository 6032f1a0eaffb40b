"""Volumes and transforms as DICOM objects that other software reads correctly."""
