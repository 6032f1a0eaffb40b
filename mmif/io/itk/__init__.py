"""The other volumes that SimpleITK reads and writes (MetaImage, NRRD)."""
