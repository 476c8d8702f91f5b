"""DICOM in RADIA: the one reader of pixels, pseudonyms, and de-identification. pydicom lives here and in `intake`."""
