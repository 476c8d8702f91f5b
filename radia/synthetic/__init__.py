"""The embedded hospital: phantom radiographs, headers full of invented identifiers, reports, known label noise.

Nothing here is learnt from or copied out of a real image or record. The same seed gives the same bytes.
"""
